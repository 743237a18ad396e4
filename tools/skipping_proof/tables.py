"""Tables of the report in Markdown: numbers with their 95 % intervals in brackets."""

import math

from skipping_proof import figures, stages
from skipping_proof.byte_results import INT8

NOT_REACHED = "–"
SHOWN_DIFFERENCE = 0.01  # of a skip ratio from its column's
TASK_RATIO = 0.75
TASK_METHODS = ("reduced k", "reduced k, renormalised", "naee", "adaptive_k", "single", "dmt", "modes", "calibrated")


def significant(value, digits=2):
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{places}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{places}f}"


def with_interval(mean, low, high, digits=2):
    return f"{significant(mean, digits + 1)} ({significant(low, digits)}–{significant(high, digits)})"


def percent(mean, low, high, places=1):
    return f"{100 * mean:.{places}f} ({100 * low:.{places}f}–{100 * high:.{places}f})"


def markdown(head, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def by_ratio(results, cell):
    """Methods × skip ratios; where a point's ratio differs from its column's it is in square brackets."""
    rows = []
    for title in results.titles():
        cells = []
        for ratio in stages.RATIOS:
            point = results.find(title, ratio)
            if point is None:
                cells.append(NOT_REACHED)
                continue
            is_off = abs(point.skipped - ratio) >= SHOWN_DIFFERENCE
            cells.append(cell(point) + (f" [{100 * point.skipped:.0f} %]" if is_off else ""))
        rows.append([title, *cells])
    return markdown(["method", *(f"{100 * ratio:.0f} %" for ratio in stages.RATIOS)], rows)


def kl_table(results):
    return by_ratio(results, lambda p: with_interval(p.kl.mean(), *p.kl.interval()))


def kept_table(results):
    return by_ratio(results, lambda p: percent(p.kept.mean(), *p.kept.interval()))


def perplexity_table(results):
    level_0 = figures.perplexity(results.samples, results.by_ranks[1].level_0)
    note = f"Level 0: {level_0[0]:.2f} ({level_0[1]:.2f}–{level_0[2]:.2f}).\n\n"
    return note + by_ratio(results, lambda p: f"{p.perplexity[0]:.1f} ({p.perplexity[1]:.1f}–{p.perplexity[2]:.1f}), "
                                              f"{100 * p.skipped_text:.0f} %")


def task_table(results):
    points = [results.find(name, TASK_RATIO) for name in TASK_METHODS]
    points = [point for point in points if point]
    rows = []
    for kind, task in results.tasks():
        right = sum(r for r, t in zip(results.right_at_level_0[kind], results.samples[kind]["task"]) if t == task)
        rows.append([("picture: " if kind == "visual_questions" else "") + task, str(right),
                     *(f"{100 * results.kept_of_task(point, task).mean():.0f}" for point in points)])
    return markdown(["task", "right at level 0", *(point.title for point in points)], rows)


def generated_table(results):
    level_0 = results.answers.level_0
    rows = [["level 0", "0", f"{100 * figures.right(level_0).mean():.1f}", "100", "100"]]
    for (name, ratio), measured in results.generated.items():
        point = results.find(name, ratio)
        rows.append([point.title, f"{100 * point.skipped:.1f}", f"{100 * figures.right(measured).mean():.1f}",
                     percent(*mean_and_interval(figures.still_right(measured, level_0))), f"{100 * point.kept.mean():.1f}"])
    return markdown(["method", "pairs skipped (%)", "right (%)", "of level 0's right answers still right (%)",
                     "kept by the token (%)"], rows)


def mean_and_interval(ratio):
    return (ratio.mean(), *ratio.interval())


def byte_table(results):
    """Bytes at equal KL, as a share of what level 0 sends with BF16 rows."""
    losses = sorted({loss for one in results for loss in one.common_losses()})
    rows = []
    for one in results:
        for name, curve in one.curves.items():
            cells = [NOT_REACHED if (amount := curve.bytes_at(loss)) is None else f"{100 * amount:.0f}" for loss in losses]
            rows.append([str(one.ranks), curve.title, *cells])
        share, loss = one.int8_alone
        rows.append([str(one.ranks), f"INT8 rows alone: {100 * share:.1f} % at KL {significant(loss.mean())}",
                     *[""] * len(losses)])
    return markdown(["ranks", "rule", *(f"KL {significant(loss, 1)}" for loss in losses)], rows)


def byte_ratio_table(results):
    losses = sorted({loss for one in results for loss in one.common_losses()})
    rows = []
    for one in results:
        for name, base in (("squares", "pair"), ("squares", "exempt"), ("sum", "pair"), ("sum", "exempt"), ("both", "exempt"),
                           ("squares" + INT8, "exempt" + INT8)):
            cells = [ratio_cell(one, name, base, loss) for loss in losses]
            rows.append([str(one.ranks), one.curves[name].title, one.curves[base].title, *cells])
    return markdown(["ranks", "rule", "against", *(f"KL {significant(loss, 1)}" for loss in losses)], rows)


def ratio_cell(result, name, base, loss):
    if any(result.curves[one].bytes_at(loss) is None for one in (name, base)):
        return NOT_REACHED
    mean, low, high = result.ratio(name, base, loss)
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"
