"""Writes tables into the page and pictures beside it."""

import os
import re

from skipping_proof import batch_rules, figures, stages, tables, targets
from skipping_proof.byte_results import INT8, ByteResults
from skipping_proof.pair_results import PairResults
from skipping_proof.pictures import Panel, picture

DATA_TITLES = {"text": "WikiText-2", "pictures": "pictures"}
LEAST_KL_SHOWN = 1e-4


def write(workplace, methods, page):
    results = PairResults(workplace, methods)
    by_data = {data: [ByteResults(workplace, methods, ranks, data) for ranks in stages.RANKS] for data in stages.BYTE_DATA}
    blocks = {
        "samples": samples_sentence(results, by_data),
        "targets": targets.table(results, [*by_data["text"], *by_data["pictures"]]),
        "kl": tables.kl_table(results),
        "kept": tables.kept_table(results),
        "generated": tables.generated_table(results),
        "tasks": tables.task_table(results),
        "perplexity": tables.perplexity_table(results),
        "batch rules": batch_rules.table(workplace, methods, results),
        "bytes text": tables.byte_table(by_data["text"]),
        "bytes pictures": tables.byte_table(by_data["pictures"]),
        "byte ratios text": tables.byte_ratio_table(by_data["text"]),
        "byte ratios pictures": tables.byte_ratio_table(by_data["pictures"]),
        "unchanged": targets.unchanged_quality(results, workplace),
    }
    workplace.close()
    replace_blocks(page, blocks)
    write_pictures(os.path.join(os.path.dirname(page), "skipping"), results, by_data)


def replace_blocks(page, blocks):
    """Each stands between <!-- measured: NAME --> and <!-- end -->."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match: match[1] + block + "\n" + match[2], text)
        if count != 1:
            raise SystemExit(f"{page}: has {count} blocks 'measured: {name}', expected one")
    with open(page, "w", encoding="utf-8") as file:
        file.write(text)


def samples_sentence(results, by_data):
    count = lambda samples, kind: (len(samples[kind]["scored"]), sum(samples[kind]["scored"]))
    pictures, words = count(results.samples, "visual_questions"), count(results.samples, "questions")
    windows = count(results.samples, "texts")
    right = sum(map(sum, results.right_at_level_0.values()))
    byte_text, byte_pictures = (count(by_data[data][0].samples, kinds[0]) for data, kinds in stages.BYTE_KINDS.items())
    return (f"Samples: {pictures[0]} questions with a picture ({pictures[1]:,} answer tokens) and {words[0]} without "
            f"({words[1]:,}), spread over the test set; level 0 answers {right} of them right.\n"
            f"Perplexity: {windows[0]} windows of 512 tokens ({windows[1]:,} predicted), spread over the three texts. "
            f"Bytes: {byte_text[0]} windows of WikiText-2 ({byte_text[1]:,} predicted tokens),\n"
            f"{byte_pictures[0]} questions with a picture ({byte_pictures[1]:,} answer tokens). Thresholds: searched on "
            f"{stages.CALIBRATION_QUESTIONS} calibration questions, for bytes {stages.CALIBRATION_PICTURES} with a picture. "
            f"Intervals: 95 %, {figures.DRAWS} draws of whole samples within their kind, the same draws for all methods.")


def write_pictures(folder, results, by_data):
    os.makedirs(folder, exist_ok=True)
    write_svg(folder, "kl.svg", pair_picture(results, "KL (nats per answer token)", lambda p: (p.kl.mean(), *p.kl.interval())))
    write_svg(folder, "kept.svg", kept_picture(results))
    for data, all_ranks in by_data.items():
        write_svg(folder, f"bytes_{data}.svg", byte_picture(all_ranks, data))


def write_svg(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


def pair_picture(results, y_title, values):
    """One threshold or rule on the left, two on the right; a few on both sides, to compare."""
    two = ("dmt", "modes", "calibrated", "weights", "ace_two", "adaptive_k", "exempt", "destination")
    curve = lambda title: (title, [(100 * p.skipped, *values(p)) for p in results.of(title)])
    names = {p.title: p.name for p in results.points}
    left = [curve(title) for title in results.titles() if names[title] not in two or names[title] == "calibrated"]
    right = [curve(title) for title in results.titles() if names[title] in two or names[title] == "reduced k"]
    shown = [y for _, points in left + right for _, y, *_ in points if y > 0]
    low, high = max(min(shown), LEAST_KL_SHOWN), max(shown)
    panels = [Panel("one number", left, (0, 100)), Panel("one for each class", right, (0, 100))]
    for panel in panels:
        panel.share_decades(low, high)
    return picture(panels, "text and vision pairs skipped (%)", y_title)


def kept_picture(results):
    chosen = ("reduced k", "reduced k, renormalised", "naee", "single", "gmlg", "dmt", "modes", "calibrated", "destination")
    curves = [(title, [(100 * p.skipped, *(100 * value for value in (p.kept.mean(), *p.kept.interval())))
                       for p in results.of(title)]) for title in results.titles()
              if any(p.name in chosen for p in results.of(title))]
    enlarged = [(title, [point for point in points if point[1] >= 90]) for title, points in curves]
    return picture([Panel("right answers of level 0 kept", curves, (0, 100), (0, 100)),
                    Panel("the same, enlarged", enlarged, (0, 100), (90, 100))],
                   "text and vision pairs skipped (%)", "kept (%)")


def byte_picture(all_ranks, data):
    panels = []
    for one in all_ranks:
        curves = [(curve.title, [(100 * amount, loss.mean()) for amount, loss in zip(curve.amounts, curve.losses)])
                  for curve in one.curves.values()]
        share, loss = one.int8_alone
        curves.append(("INT8 rows alone", [(100 * share, loss.mean())]))
        panels.append(Panel(f"{DATA_TITLES[data]}, {one.ranks} ranks", curves, (0, 100)))
    lows, highs = zip(*(panel.decades() for panel in panels))
    for panel in panels:
        panel.share_decades(max(min(lows), LEAST_KL_SHOWN), max(highs))
    return picture(panels, "payload bytes left, of level 0's with BF16 rows (%)", "KL (nats per token)")
