#!/usr/bin/env python3
"""Measures whether shadow copies of experts beat skipping at equal bytes between ranks, on the demo model.

    tools/measure_shadows.py --binary build/cpu-release/skipper
    tools/measure_shadows.py --binary build/cpu-release/skipper --windows 0 --pictures 100

Thresholds are quantiles of models/demo/calibration.json, the same shares of pairs for both classes; figures are from
models/demo/eval, on which nothing is chosen. For each number of ranks: a plan with all experts unrounded, the same with shadows
of all experts of other ranks in each format. The destination rule and the shadow rule at the same share leave out the same trips
of the first layer; what they lose differs. Questions with a picture also have the answers kept: of those that level 0 answers
right, the share whose every token stays the most probable one. Writes tables between the markers "measured: shadows, texts" and
"measured: shadows, pictures" of the page; what is not measured stays. What was measured is kept in --work. Needs Python's
standard library and mpirun.
"""

import argparse
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from skipping_proof import figures  # noqa: E402
from skipping_proof.methods import CLASSES, Methods  # noqa: E402
from skipping_proof.report import replace_blocks  # noqa: E402
from skipping_proof.runs import Workplace  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RANKS = (2, 4)
FORMATS = ("int2a-g32", "int3a-g32", "int4a-g32")
SHARES = (0.45, 0.7, 0.88, 1.0)
EQUAL_LOSSES = (0.005, 0.02, 0.05)
MEMORY = "1G"
DATA = {"texts": ("eval/wikitext2_test.txt", ("--text_windows",), figures.TEXT_KINDS),
        "pictures": ("eval/vqa.jsonl", ("--limit",), ("visual_questions",))}
TITLES = {"exempt": "skipping: pair rule, local exemption", "destination": "skipping: destination rule",
          "int2a-g32": "2-bit shadows", "int3a-g32": "3-bit shadows", "int4a-g32": "4-bit shadows",
          "half int4a-g32": "4-bit shadows, half of the memory"}
# What an expert's answer loses by the format, as planning/shadow_copies.h has it: 3 · the rounding variance.
ERRORS = {"int2a-g32": 0.770, "int3a-g32": 0.1414, "int4a-g32": 0.0308}


class Plans:
    """Made once: the same owners with and without shadows."""

    def __init__(self, workplace, ranks):
        self._workplace, self._ranks = workplace, ranks
        self.whole = self._make("whole", [])

    def shadowed(self, name):
        half = name.startswith("half ")
        weight_format = name.removeprefix("half ")
        flags = ["--owners_of", self.whole, "--shadow_format", weight_format]
        if half:
            flags += ["--shadow_memory", str(self.shadow_bytes(self.shadowed(weight_format)) // 2)]
        return self._make(name.replace(" ", "_"), flags)

    def shadow_bytes(self, path):
        """The most that a rank's shadows take."""
        with open(path, encoding="utf-8") as file:
            plan = json.load(file)
        with open(self.whole, encoding="utf-8") as file:
            whole = json.load(file)
        used = lambda one, rank: sum(one["ranks"][rank]["host"]["experts"].values())
        return max(used(plan, rank) - used(whole, rank) for rank in range(self._ranks))

    def _make(self, name, flags):
        path = self._workplace.path(f"plan_{self._ranks}_{name}.json")
        command = [self._workplace.binary, "plan", "--model", self._workplace.model, "--device", "cpu", "--ranks",
                   str(self._ranks), "--memory", MEMORY, "--out", path, *flags]
        if not os.path.exists(path):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return path


def shadow_point(methods, share, ranks, error):
    """The trips that the destination rule leaves out at this share."""
    point = methods.destination_point((share, share), ranks)
    point["tau_shadow"] = {name: {hop: tau * error for hop, tau in point["tau_dst"][name].items()} for name in CLASSES}
    del point["tau_dst"]
    return point


def points_of(methods, name, ranks):
    if name == "exempt":
        return [methods.score_point(methods.calibrated, (share, share), ranks, exempt_local=True) for share in SHARES]
    if name == "destination":
        return [methods.destination_point((share, share), ranks) for share in SHARES]
    return [shadow_point(methods, share, ranks, ERRORS[name.removeprefix("half ")]) for share in SHARES]


class Curve:
    """(share of the bytes, KL, and with questions answers kept) at each point of one rule."""

    def __init__(self, measurer, points, kinds, right_at_level_0=None):
        measurer.start()
        unskipped = figures.remote_bytes(measurer.level_0, kinds)
        measured = [measurer.measure(point) for point in points]
        self.kept = [figures.kept(one, right_at_level_0) for one in measured] if right_at_level_0 else []
        self.amounts = [figures.remote_bytes(one, kinds) / unskipped for one in measured]
        self.losses = [figures.kl(measurer.samples, one, kinds) for one in measured]

    def bytes_at(self, loss):
        return figures.at_loss([one.mean() for one in self.losses], self.amounts, loss)

    def ratio_at(self, other, loss):
        """Bytes by those of another rule at equal loss, with its interval; None outside."""
        if self.bytes_at(loss) is None or other.bytes_at(loss) is None:
            return None
        drawn = []
        for draw in range(figures.DRAWS):
            pair = [figures.at_loss([one.drawn[draw] for one in curve.losses], curve.amounts, loss) for curve in (self, other)]
            if None not in pair:
                drawn.append(pair[0] / pair[1])
        return (self.bytes_at(loss) / other.bytes_at(loss), *figures.quantiles(drawn))


def right_at_level_0(workplace, plans, ranks, data, count):
    """By kind of question; None of texts. Level 0 uses no shadows: one plan tells for all."""
    source, limit, kinds = DATA[data]
    if kinds == figures.TEXT_KINDS:
        return None
    flags = (*limit, count, "--answers", "true", "--plan", plans.whole)
    measurer = workplace.measurer(f"shadows_{data}_{ranks}_answers", source, ranks, *flags).start()
    measurer.close()
    return {kind: measurer.level_0["kinds"][kind]["right"] for kind in kinds}


def measure(workplace, methods, plans, ranks, data, count, names):
    source, limit, kinds = DATA[data]
    right = right_at_level_0(workplace, plans, ranks, data, count)
    curves = {}
    for name in names:
        plan = plans.whole if name in ("exempt", "destination") else plans.shadowed(name)
        cache = f"shadows_{data}_{ranks}_{name.replace(' ', '_')}"
        measurer = workplace.measurer(cache, source, ranks, *limit, count, "--plan", plan)
        curves[name] = Curve(measurer, points_of(methods, name, ranks), kinds, right)
        measurer.close()
        for amount, loss in zip(curves[name].amounts, curves[name].losses):
            print(f"{data}, {ranks} ranks, {name}: KL {loss.mean():.5f} at {100 * amount:.1f} % of the bytes", flush=True)
    return curves


def cell(amount, loss):
    digits = 4 if loss.mean() >= 0.001 else 5
    mean, low, high = (f"{value:.{digits}f}" for value in (loss.mean(), *loss.interval()))
    return f"{mean} ({low}–{high}) at {100 * amount:.1f} %"


def title_of(name, plans):
    if name in ("exempt", "destination"):
        return TITLES[name]
    return f"{TITLES[name]}, {plans.shadow_bytes(plans.shadowed(name)) / 1e6:.2f} MB a rank"


def kept_table(data, ranks, curves):
    if not all(curve.kept for curve in curves.values()):
        return []
    num_right = sum(map(sum, (bottoms for _, bottoms in next(iter(curves.values())).kept[0].parts)))
    lines = ["", f"{data}, {ranks} ranks; of {num_right} right answers kept, at the same thresholds (%) | "
             + " | ".join(f"{100 * share:.0f} %" for share in SHARES), "--- | " + " | ".join("---" for _ in SHARES)]
    for name, curve in curves.items():
        cells = ("{:.1f} ({:.1f}–{:.1f})".format(*(100 * value for value in (one.mean(), *one.interval()))) for one in curve.kept)
        lines.append(f"{TITLES[name]} | " + " | ".join(cells))
    return lines


def tables(data, ranks, plans, curves):
    lines = [f"{data}, {ranks} ranks; share of the pairs' threshold | " + " | ".join(f"{100 * share:.0f} %" for share in SHARES),
             "--- | " + " | ".join("---" for _ in SHARES)]
    for name, curve in curves.items():
        lines.append(f"{title_of(name, plans)} | " + " | ".join(map(cell, curve.amounts, curve.losses)))
    lines += ["", f"{data}, {ranks} ranks; bytes by the destination rule's at equal KL | "
              + " | ".join(f"{loss} nats" for loss in EQUAL_LOSSES), "--- | " + " | ".join("---" for _ in EQUAL_LOSSES)]
    for name, curve in curves.items():
        if name == "destination":
            continue
        ratios = [curve.ratio_at(curves["destination"], loss) for loss in EQUAL_LOSSES]
        cells = ("–" if one is None else "{:.2f} ({:.2f}–{:.2f})".format(*one) for one in ratios)
        lines.append(f"{TITLES[name]} | " + " | ".join(cells))
    lines += kept_table(data, ranks, curves)
    return "\n".join(f"| {line} |" if line else "" for line in lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="a release build of skipper")
    parser.add_argument("--model", default=os.path.join(ROOT, "models/demo"), help="with calibration.json and eval/")
    parser.add_argument("--work", default=os.path.join(ROOT, "build/shadows"), help="folder for what was measured")
    parser.add_argument("--page", default=os.path.join(ROOT, "docs/skipping.md"), help="whose block of tables is replaced; or -")
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--windows", type=int, default=24, help="of 512 tokens; 0: no texts")
    parser.add_argument("--pictures", type=int, default=0, help="questions with a picture (default: none)")
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--rules", default=",".join(TITLES), help="some of them, with commas between")
    return parser.parse_args()


def main():
    arguments = parse()
    workplace = Workplace(arguments.binary, arguments.model, arguments.work, arguments.threads, 0)
    methods = Methods(arguments.model)
    blocks = {}
    try:
        for ranks in map(int, arguments.ranks.split(",")):
            plans = Plans(workplace, ranks)
            for data, count in (("texts", arguments.windows), ("pictures", arguments.pictures)):
                if count == 0:
                    continue
                curves = measure(workplace, methods, plans, ranks, data, count, arguments.rules.split(","))
                blocks.setdefault(data, []).append(tables(data, ranks, plans, curves))
    finally:
        workplace.close()
    for data, parts in blocks.items():
        text = "\n\n".join(parts)
        if arguments.page == "-":
            print(text)
        else:
            replace_blocks(arguments.page, {f"shadows, {data}": text})


if __name__ == "__main__":
    main()
