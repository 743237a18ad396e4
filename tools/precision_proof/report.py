"""Writes the tables and the picture of docs/precision.md."""

import os

from precision_proof.results import ALL_KINDS
from skipping_proof import figures
from skipping_proof.pictures import Panel, picture
from skipping_proof.report import replace_blocks, write_svg
from skipping_proof.tables import markdown, mean_and_interval, percent, significant, with_interval

AT_MOST_UNIFORM = 1.1  # times a uniform format's KL
BASELINES = ("uniform", "random", "frequency")


def write(results, page):
    replace_blocks(page, {"samples": samples_sentence(results), "targets": targets_table(results),
                          "equal bytes": bytes_table(results), "uniform": uniform_table(results), "tasks": task_table(results),
                          "knob": knob_table(results)})
    folder = os.path.join(os.path.dirname(page), "precision")
    os.makedirs(folder, exist_ok=True)
    write_svg(folder, "kl.svg", kl_picture(results))


def samples_sentence(results):
    samples = results.measurer.samples
    count = lambda kind: (len(samples[kind]["scored"]), sum(samples[kind]["scored"]))
    pictures, words, windows = count("visual_questions"), count("questions"), count("texts")
    fit = "not measured" if results.profile.r_squared is None else f"{results.profile.r_squared:.2f}"
    return (f"Samples: {pictures[0]} questions with a picture ({pictures[1]:,} answer tokens), {words[0]} without "
            f"({words[1]:,}), {windows[0]} windows of texts ({windows[1]:,} predicted tokens), spread over the\ntest set; "
            f"unrounded experts answer "
            f"{sum(map(sum, results.right.values()))} questions right. R² of the profile's sums: {fit}. Intervals: 95 %, "
            f"{figures.DRAWS} draws of whole samples within their kind, the same draws for all rows.")


def kl_text(ratio):
    return with_interval(*mean_and_interval(ratio))


def row_cells(row):
    perplexity = row.perplexity()
    return [row.title, f"{row.bits:.3f}", f"{row.bytes:,}", kl_text(row.kl()), kl_text(row.kl(figures.QUESTION_KINDS)),
            kl_text(row.kl(figures.TEXT_KINDS)), f"{perplexity[0]:.2f} ({perplexity[1]:.2f}–{perplexity[2]:.2f})",
            percent(*mean_and_interval(row.kept()))]


ROW_HEAD = ["experts", "bits", "bytes", "KL", "KL of answers", "KL of texts", "perplexity", "right answers kept (%)"]


def bytes_table(results):
    rows = [row_cells(results.unrounded)]
    for average, by_name in results.by_average.items():
        for name, row in by_name.items():
            cells = row_cells(row)
            if name == "random":
                cells[3] += f"; seeds {significant(min(row.each_kl()))} to {significant(max(row.each_kl()))}"
            rows.append([f"{average} bits", *cells])
    return markdown(["average", *ROW_HEAD], [["", *rows[0]], *rows[1:]])


def uniform_table(results):
    rows = []
    for planned, uniform in results.at_uniform.values():
        rows += [[uniform.title, *row_cells(planned)], ["", *row_cells(uniform)]]
    return markdown(["bytes of", *ROW_HEAD], rows)


def verdict(is_reached):
    return "reached" if is_reached else "**missed**"


def ratio_cells(ratio):
    mean, (low, high) = ratio.mean(), ratio.interval()
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"


def targets_table(results):
    rows = []
    for average, by_name in results.by_average.items():
        for name in BASELINES:
            ratio = by_name["planned"].over(by_name[name])
            target, limit = ("≤ 1.1", AT_MOST_UNIFORM) if name == "uniform" else ("interval under 1", 1.0)
            value = ratio.mean() if name == "uniform" else ratio.interval()[1]
            rows.append([f"planned / {by_name[name].title}, KL at {average} bits", target, ratio_cells(ratio),
                         verdict(value <= limit if name == "uniform" else value < limit)])
        planned = by_name["planned"].kl().mean()
        worse = sum(kl > planned for kl in by_name["random"].each_kl())
        rows.append([f"random assignments that lose more than the plan, {average} bits", f"all {results.num_seeds}", str(worse),
                     verdict(worse == results.num_seeds)])
    for name, (planned, uniform) in results.at_uniform.items():
        ratio = planned.over(uniform)
        rows.append([f"planned / uniform {name}, KL at its bytes", "≤ 1.1", ratio_cells(ratio),
                     verdict(ratio.mean() <= AT_MOST_UNIFORM)])
    return markdown(["what", "target", "measured", ""], rows + knob_targets(results))


def knob_targets(results):
    sizes = [row.bytes for _, row in results.knob]
    correlation, (low, high) = knob_correlation(results)
    falls = all(after < before for before, after in zip(sizes, sizes[1:]))
    return [["knob: bytes fall at every step", "all", f"{sizes[0]:,} to {sizes[-1]:,}", verdict(falls)],
            ["knob: correlation of KL with the number of experts, by ranks", "≥ 0.95",
             f"{correlation:.3f} ({low:.3f}–{high:.3f})", verdict(correlation >= 0.95)]]


def rank_correlation(values):
    """Spearman's, with the order of the list."""
    order = sorted(range(len(values)), key=values.__getitem__)
    count = len(values)
    squares = sum((rank - index) ** 2 for rank, index in enumerate(order))
    return 1 - 6 * squares / (count * (count * count - 1))


def knob_correlation(results):
    ratios = [row.kl() for _, row in results.knob]
    drawn = [rank_correlation([ratio.drawn[draw] for ratio in ratios]) for draw in range(figures.DRAWS)]
    return rank_correlation([ratio.mean() for ratio in ratios]), figures.quantiles(drawn)


def task_table(results):
    rows = []
    columns = [(average, name, by_name[name]) for average, by_name in results.by_average.items()
               for name in ("planned", *BASELINES)]
    for kind in figures.QUESTION_KINDS:
        tasks = results.measurer.samples[kind]["task"]
        for task in sorted(set(tasks)):
            right = sum(bool(r) for r, t in zip(results.right[kind], tasks) if t == task)
            rows.append([("picture: " if kind == "visual_questions" else "") + task, str(right),
                         *(f"{100 * row.kept(task).mean():.0f}" for _, _, row in columns)])
    return markdown(["task", "right", *(f"{average} bits, {name}" for average, name, _ in columns)], rows)


def knob_table(results):
    rows = [[str(count), f"{row.bits:.2f}", f"{row.bytes:,}", kl_text(row.kl()), percent(*mean_and_interval(row.kept()))]
            for count, row in results.knob]
    return markdown(["experts at four bits", "bits", "bytes", "KL", "right answers kept (%)"], rows)


def curve(title, rows):
    points = [(row.bits, row.kl(ALL_KINDS)) for row in rows]
    return title, [(bits, kl.mean(), *kl.interval()) for bits, kl in points if kl.mean() > 0]


def kl_picture(results):
    by_name = lambda name: [rows[name] for rows in results.by_average.values()]
    pairs = list(results.at_uniform.values())
    planned = sorted(by_name("planned") + [plan for plan, _ in pairs], key=lambda row: row.bits)
    curves = [curve("planned", planned), curve("one format, all experts", [uniform for _, uniform in pairs]),
              curve("two formats, layers in order", by_name("uniform")), curve("two formats, random experts", by_name("random")),
              curve("two formats, most used experts first", by_name("frequency"))]
    knob = [curve("some experts at four bits, the others unrounded", [row for _, row in results.knob])]
    return picture([Panel("equal bytes", curves, (2, 9)), Panel("experts at four bits, step by step", knob, (4, 16))],
                   "bits of an expert weight", "KL (nats per token)")
