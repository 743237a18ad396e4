"""What is measured, on which data: thresholds are chosen on calibration data, figures are taken from test data."""

import json
import os

from skipping_proof import figures
from skipping_proof.search import Search

RATIOS = (0.25, 0.5, 0.63, 0.75, 0.88)
LADDER_RATIOS = (0.05, 0.12, 0.25, 0.37, 0.5, 0.63, 0.75, 0.82, 0.88)
RANKS = (2, 4, 8)
CALIBRATION_QUESTIONS = 360
CALIBRATION_PICTURES = 240
TEXT_WINDOWS = 24
BYTE_PICTURES = 300
BYTE_SHARES = (0.1, 0.2, 0.32, 0.45, 0.58, 0.7, 0.8, 0.88, 0.95)
BYTE_TARGETS = (0.3, 0.5, 0.65, 0.8)
PAYLOAD_SHARES = (0.2, 0.32, 0.45, 0.58, 0.7, 0.8, 0.88)
PAYLOAD_RULES = ("pair", "exempt", "squares")
BYTE_DATA = {"text": "eval/wikitext2_test.txt", "pictures": "eval/vqa.jsonl"}
BYTE_KINDS = {"text": figures.TEXT_KINDS, "pictures": ("visual_questions",)}
ANSWER_RATIO = 0.75
# As configs/exact.json.
EXACT_CONFIG = {"weights": {"activation_dtype": "f32"}, "kv_cache": {"dtype": "f32"},
                "dispatch": {"payload_dtype": "f32", "combine_dtype": "f32"}}
INT8_CONFIG = {"dispatch": {"payload_dtype": "int8"}}
CALIBRATED_ANSWER_RATIOS = (0.37, 0.5, 0.63, 0.75, 0.88)


def write_json(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def sum_kl(samples, measured, kinds):
    parts = figures.kl(samples, measured, kinds).parts
    return sum(sum(top) for top, _ in parts) / sum(sum(bottom) for _, bottom in parts)


def choose(workplace, methods):
    """For each method and skip ratio its numbers: {method: {ratio: {"shares", "gain", "loss"}}}; chosen.json."""
    for method in methods.searched():
        measurer = workplace.measurer(f"calibration_{method.ranks}_{method.name}", "calibration", method.ranks,
                                      "--limit", CALIBRATION_QUESTIONS, "--text_windows", 0)

        def gain_and_loss(text, vision):
            measured = measurer.measure(method.point(text, vision))
            return figures.skip_ratio(measured), sum_kl(measurer.samples, measured, figures.QUESTION_KINDS)

        search = Search(gain_and_loss)
        solve = search.two_numbers if method.has_two else search.one_number
        ratios = {}
        for ratio in LADDER_RATIOS if method.name == "calibrated" else RATIOS:
            found = solve(ratio)
            if found and abs(found.gain - ratio) < 0.02:
                ratios[str(ratio)] = {"shares": found.shares, "gain": found.gain, "loss": found.loss}
                print(f"{method.title}: {100 * found.gain:.1f} % at {found.shares}, KL {found.loss:.4f}", flush=True)
        measurer.close()
        write_json(workplace.path("chosen.json"), {**read_chosen(workplace), method.name: ratios})


def read_chosen(workplace):
    """Method by method, as far as they were searched."""
    path = workplace.path("chosen.json")
    return read_json(path) if os.path.exists(path) else {}


class TestSet:
    """Questions and texts of the test set, measured apart: so many of each, whatever the other's share of the data."""

    def __init__(self, workplace, ranks):
        questions = ("--limit", workplace.num_questions, "--text_windows", 0)
        texts = ("--text_windows", TEXT_WINDOWS)
        self._parts = [workplace.measurer(f"test_{ranks}", "eval", ranks, *questions),
                       workplace.measurer(f"test_texts_{ranks}", texts_folder(workplace), ranks, *texts)]

    def start(self):
        questions, texts = (part.start() for part in self._parts)
        self.samples = {**questions.samples, **texts.samples}
        self.level_0 = self._merged([questions.level_0, texts.level_0])
        return self

    def measure(self, point):
        return self._merged([part.measure(point) for part in self._parts])

    def close(self):
        for part in self._parts:
            part.close()

    @staticmethod
    def _merged(parts):
        return {"kinds": {kind: lists for part in parts for kind, lists in part["kinds"].items()}}


def texts_folder(workplace):
    """The test set's texts without its questions."""
    folder, data = workplace.path("texts"), os.path.abspath(workplace.data("eval"))
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(data):
        if name.endswith(".txt") and not os.path.lexists(os.path.join(folder, name)):
            os.symlink(os.path.join(data, name), os.path.join(folder, name))
    return os.path.abspath(folder)


def test_points(workplace, methods):
    """(title, name, ratio, ranks, point) of everything that is compared by pairs."""
    chosen = read_chosen(workplace)
    points = []
    for title, point in methods.reduced_k(4):
        points += [(title, title, ratio, 1, point(ratio)) for ratio in RATIOS]
    for method in methods.searched():
        for ratio, found in chosen.get(method.name, {}).items():
            points.append((method.title, method.name, float(ratio), method.ranks, method.point(*found["shares"])))
    return points


def test(workplace, methods):
    points = test_points(workplace, methods)
    for ranks in sorted({point[3] for point in points}):
        measurer = TestSet(workplace, ranks).start()
        for title, _, _, _, point in (point for point in points if point[3] == ranks):
            measured = measurer.measure(point)
            print(f"test, {title}, {100 * figures.skip_ratio(measured):.1f} %: KL "
                  f"{sum_kl(measurer.samples, measured, figures.QUESTION_KINDS):.4f}", flush=True)
        measurer.close()


def answers_measurer(workplace):
    return workplace.measurer("answers", "eval", 1, "--limit", workplace.num_questions, "--text_windows", 0, "--answers", "true")


def answers(workplace, methods):
    """Generates the answers: of level 0 and of some points."""
    measurer = answers_measurer(workplace).start()
    for _, name, ratio, _, point in test_points(workplace, methods):
        is_calibrated = name == "calibrated" and ratio in CALIBRATED_ANSWER_RATIOS
        if is_calibrated or (ratio == ANSWER_RATIO and name in ("reduced k", "dmt", "generated")):
            measurer.measure(point)
    measurer.close()


def noise_measurers(workplace):
    """(what moves level 0, keeper of its predictions before, what compares those after with them)."""
    exact, int8 = workplace.path("exact.json"), workplace.path("int8.json")
    write_json(exact, EXACT_CONFIG)
    write_json(int8, INT8_CONFIG)
    samples = ("--limit", workplace.num_questions, "--text_windows", 0)
    found = []
    for name, title, before, after, ranks in (("exact", "BF16 instead of FP32 rows and cache", ("--config", exact), (), 1),
                                              ("ranks", "four ranks instead of one", (), (), 4),
                                              ("payload", "INT8 rows to the experts", (), ("--config", int8), 1),
                                              ("experts", "INT8 experts (groups of 64)", (), ("--experts", "int8-g64"), 1)):
        reference = workplace.path(f"reference_{name}")
        found.append((title, workplace.measurer(f"noise_{name}", "eval", 1, *samples, *before, "--save_reference", reference),
                      workplace.measurer(f"noise_from_{name}", "eval", ranks, *samples, *after, "--reference", reference)))
    return found


def noise(workplace, _):
    for title, keeping, comparing in noise_measurers(workplace):
        if comparing.level_0 is None:
            keeping.run().close()
        comparing.start().close()
        remove_references(workplace)
        print(f"noise, {title}: KL {sum_kl(comparing.samples, comparing.level_0, figures.QUESTION_KINDS):.2e}", flush=True)


def choose_bytes(workplace, methods):
    """Text and vision shares of each rule for pictures, by bytes saved on 4 ranks: {rule: [shares]}; chosen_bytes.json."""
    chosen = {}
    for name, title, point in methods.byte_rules():
        measurer = workplace.measurer(f"calibration_bytes_{name}", "calibration/vqa.jsonl", 4, "--limit", CALIBRATION_PICTURES)
        measurer.start()
        kinds = BYTE_KINDS["pictures"]
        unskipped = figures.remote_bytes(measurer.level_0, kinds)

        def gain_and_loss(text, vision):
            measured = measurer.measure(point(text, vision, 4))
            return 1 - figures.remote_bytes(measured, kinds) / unskipped, sum_kl(measurer.samples, measured, kinds)

        search = Search(gain_and_loss)
        found = [one for one in map(search.two_numbers, BYTE_TARGETS) if one]
        for one in found:
            print(f"bytes, {title}: {100 * one.gain:.1f} % saved at {one.shares}, KL {one.loss:.4f}", flush=True)
        chosen[name] = [one.shares for one in found]
        measurer.close()
    write_json(workplace.path("chosen_bytes.json"), chosen)


def byte_measurers(workplace, ranks, data):
    """(BF16 payload, 8-bit payload, compared with the predictions of the first at level 0)."""
    limits = ("--text_windows", TEXT_WINDOWS) if data == "text" else ("--limit", BYTE_PICTURES)
    reference, config = workplace.path(f"reference_{data}_{ranks}"), workplace.path("int8.json")
    write_json(config, INT8_CONFIG)
    plain = workplace.measurer(f"bytes_{data}_{ranks}", BYTE_DATA[data], ranks, *limits, "--save_reference", reference)
    coded = workplace.measurer(f"bytes_{data}_{ranks}_int8", BYTE_DATA[data], ranks, *limits, "--config", config,
                               "--reference", reference)
    return plain, coded


def byte_points(workplace, methods, ranks, data):
    """(rule, point, whether also with 8-bit payload)."""
    points = []
    for name, _, point in methods.byte_rules():
        if data == "text":
            shares = [(share, share) for share in BYTE_SHARES]
        else:
            shares = [tuple(one) for one in read_json(workplace.path("chosen_bytes.json"))[name]]
        for one in shares:
            coded = name in PAYLOAD_RULES and (data == "pictures" or one[0] in PAYLOAD_SHARES)
            points.append((name, point(*one, ranks), coded))
    return points


def compare_bytes(workplace, methods):
    for data in BYTE_DATA:
        for ranks in RANKS:
            plain, coded = byte_measurers(workplace, ranks, data)
            coded_points = [point for _, point, is_coded in byte_points(workplace, methods, ranks, data) if is_coded]
            plain.start()
            if coded.level_0 is None or not all(map(coded.knows, coded_points)):
                plain.run()
            kinds = BYTE_KINDS[data]
            unskipped = figures.remote_bytes(plain.level_0, kinds)
            for name, point, _ in byte_points(workplace, methods, ranks, data):
                measured = plain.measure(point)
                print(f"{data}, {ranks} ranks, {name}: KL {sum_kl(plain.samples, measured, kinds):.4f}, "
                      f"{100 * figures.remote_bytes(measured, kinds) / unskipped:.1f} % of the bytes", flush=True)
            plain.close()
            coded.start()
            for point in coded_points:
                coded.measure(point)
            coded.close()
            remove_references(workplace)


def remove_references(workplace):
    """They are large, and a measurement that is kept needs them no more."""
    for name in os.listdir(workplace.folder):
        if name.startswith("reference_"):
            os.remove(workplace.path(name))


STAGES = {"choose": choose, "test": test, "answers": answers, "noise": noise, "choose_bytes": choose_bytes,
          "bytes": compare_bytes}
