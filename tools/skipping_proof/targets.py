"""What skipping was meant to reach, and whether it does."""

from skipping_proof import figures, stages
from skipping_proof.tables import NOT_REACHED, markdown, mean_and_interval, percent, significant

RATIO = 0.75
MOST_OF_REDUCED_K = 0.5
LEAST_KEPT = 0.98
CALIBRATED = {"calibrated": "calibrated", "generated": "calibrated, generated tokens at 0.7"}
BYTE_TARGETS = ((4, "squares", "pair", 0.85), (2, "squares", "pair", 0.75), (4, "squares", "exempt", 0.92))


def verdict(holds):
    return "reached" if holds else "**missed**"


def by_loss(losses, holds):
    """The verdict, with the KL at which it is which where it is not always the same."""
    if len(set(holds)) == 1:
        return verdict(holds[0])
    at = lambda wanted: ", ".join(significant(loss, 1) for loss, one in zip(losses, holds) if one == wanted)
    return f"{verdict(True)} at {at(True)}; {verdict(False)} at {at(False)}"


def kl_ratio(results, name, other):
    """Paired: (mean, low, high) of a method's KL by another point's, on its curve where it skips as much as that point."""
    curve = sorted((point for point in results.points if point.name == name), key=lambda point: point.skipped)
    skipped = [point.skipped for point in curve]
    drawn = [figures.loss_at(skipped, losses, other.skipped) / bottom
             for losses, bottom in zip(zip(*(point.kl.drawn for point in curve)), other.kl.drawn) if bottom]
    mean = figures.loss_at(skipped, [point.kl.mean() for point in curve], other.skipped) / other.kl.mean()
    return (mean, *figures.quantiles(drawn))


def ratio_text(mean, low, high):
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"


def pair_targets(results):
    rows = []
    for ratio in stages.RATIOS:
        plain = results.find("dmt", ratio)
        for name, title in CALIBRATED.items():
            found = kl_ratio(results, name, plain)
            rows.append([f"{title} / DMT, KL at {100 * plain.skipped:.0f} % skipped", "≤ 1", ratio_text(*found),
                         verdict(found[0] <= 1)])
    found = kl_ratio(results, "calibrated", results.find("reduced k", RATIO))
    rows.append([f"calibrated / reduced k, KL at {100 * RATIO:.0f} % skipped", f"≤ {MOST_OF_REDUCED_K}", ratio_text(*found),
                 verdict(found[0] <= MOST_OF_REDUCED_K)])
    return rows + answer_targets(results)


def answer_targets(results):
    """Of answers that were generated."""
    rows = []
    before = results.answers.level_0
    for name, title in CALIBRATED.items():
        measured = results.generated[name, RATIO]
        share = figures.right(measured).mean() / figures.right(before).mean()
        found = mean_and_interval(figures.still_right(measured, before))
        rows.append([f"right answers at {100 * RATIO:.0f} %, {title}, in percent of level 0's number",
                     f"≥ {100 * LEAST_KEPT:.0f} %", f"{100 * share:.1f}", verdict(share >= LEAST_KEPT)])
        rows.append([f"level 0's right answers still right at {100 * RATIO:.0f} %, {title}", f"≥ {100 * LEAST_KEPT:.0f} %",
                     percent(*found), verdict(found[0] >= LEAST_KEPT)])
    return rows


def byte_targets(byte_results):
    rows = []
    for ranks, name, base, most in BYTE_TARGETS:
        for one in byte_results:
            losses = one.common_losses()
            if one.ranks != ranks or not losses:
                continue
            found = [one.ratio(name, base, loss) for loss in losses]
            rows.append([f"{one.curves[name].title} / {one.curves[base].title}, bytes on {ranks} ranks, "
                         f"{'WikiText' if one.data == 'text' else 'pictures'}", f"≤ {most}",
                         f"{min(r[0] for r in found):.2f} to {max(r[0] for r in found):.2f} at KL {significant(losses[0], 1)} to "
                         f"{significant(losses[-1], 1)}",
                         by_loss(losses, [ratio[0] <= most for ratio in found])])
    return rows


def table(results, byte_results):
    return markdown(["what", "target", "measured", ""], pair_targets(results) + byte_targets(byte_results))


def unchanged_quality(results, workplace):
    """How much is skipped before the loss is larger than what level 0 itself moves by."""
    ladder = [point for point in results.points if point.name == "calibrated"]
    losses, skipped = [p.kl.mean() for p in ladder], [p.skipped for p in ladder]
    rows = []
    for title, _, comparing in stages.noise_measurers(workplace):
        noise = figures.kl(comparing.start().samples, comparing.level_0)
        amount = figures.at_loss(losses, skipped, noise.mean())
        shown = f"{100 * amount:.0f} %" if amount is not None else (
            f"under {100 * min(skipped):.0f} %" if noise.mean() < min(losses) else NOT_REACHED)
        rows.append([f"KL no larger than of {title} ({significant(noise.mean())})", shown])
    rows.append(["no fewer right answers, generated, than the interval of the difference holds", unchanged_answers(results)])
    return markdown(["quality unchanged when", "pairs skipped at most"], rows)


def unchanged_answers(results):
    level_0 = results.answers.level_0
    best = 0.0
    for point in (p for p in results.points if p.name == "calibrated"):
        after = results.generated.get((point.name, point.wanted))
        if after is None:
            continue
        parts = []
        for kind in figures.QUESTION_KINDS:
            pairs = zip(after["kinds"][kind]["right"], level_0["kinds"][kind]["right"])
            differences = [a - b for a, b in pairs]
            parts.append((differences, [1] * len(differences)))
        if figures.Ratio(parts).interval()[1] >= 0:
            best = max(best, point.skipped)
    return f"{100 * best:.0f} %"
