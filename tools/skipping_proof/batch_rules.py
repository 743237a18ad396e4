"""Rules that look at a whole step. No share of the pairs can be asked of them: some settings of each are measured as they are."""

from skipping_proof import figures, stages, tables
from skipping_proof.methods import CLASSES, document, equal_alpha

RANKS = 4
CAPACITIES = (2.0, 1.5, 1.25, 1.0)  # pairs of a rank, in multiples of the mean over ranks
BASE_KS = (3, 2, 1)
RANK_EXPERTS = (24, 16, 8)          # of the demo's 32, all on one rank


def unskipped(methods, ranks=1, **fields):
    """No rule but those of `fields`."""
    return document(equal_alpha(methods.num_layers), ranks, tau={name: 0.0 for name in CLASSES}, **fields)


def capacity_points(methods):
    """(title, point): at prompts and answers, which run in the same steps."""
    return [(f"rank capacity {capacity:g}, {RANKS} ranks", unskipped(methods, RANKS, rank_capacity=capacity))
            for capacity in CAPACITIES]


def decode_points(methods):
    """(title, point): at generated tokens alone."""
    here = {"placement": {"ranks": 1, "ranks_per_node": 1}}
    return [(f"decode: experts that some token has among its first {k}", unskipped(methods, decode_base_k=k, **here))
            for k in BASE_KS] + [
            (f"decode: at most {count} experts a rank", unskipped(methods, decode_rank_experts=count, **here))
            for count in RANK_EXPERTS]


def measure(workplace, methods):
    """The stage: of capacities KL and kept answers, of decode rules the answers that are generated."""
    scorer = stages.TestSet(workplace, RANKS).start()
    for title, point in capacity_points(methods):
        measured = scorer.measure(point)
        print(f"{title}: {100 * figures.skip_ratio(measured):.1f} % skipped, KL "
              f"{stages.sum_kl(scorer.samples, measured, figures.QUESTION_KINDS):.5f}", flush=True)
    scorer.close()
    generator = stages.answers_measurer(workplace).start()
    for title, point in decode_points(methods):
        still = figures.still_right(generator.measure(point), generator.level_0)
        print(f"{title}: {100 * still.mean():.1f} % of the right answers stay right", flush=True)
    generator.close()


def table(workplace, methods, results):
    """What was measured, in Markdown."""
    rows = []
    scorer = stages.TestSet(workplace, RANKS).start()
    for title, point in capacity_points(methods):
        measured = scorer.measure(point)
        loss, kept = figures.kl(scorer.samples, measured), figures.kept(measured, results.right_at_level_0)
        rows.append([title, f"{100 * figures.skip_ratio(measured):.1f}",
                     tables.with_interval(*tables.mean_and_interval(loss)),
                     tables.percent(*tables.mean_and_interval(kept)), tables.NOT_REACHED])
    for title, point in decode_points(methods):
        still = figures.still_right(results.answers.measure(point), results.answers.level_0)
        rows.append([title, *[tables.NOT_REACHED] * 3, tables.percent(*tables.mean_and_interval(still))])
    return tables.markdown(["rule", "pairs skipped (%)", "KL", "kept by the token (%)",
                            "of level 0's right answers, generated, still right (%)"], rows)
