"""Means with bootstrap intervals, from what `skipper measure` says of every sample."""

import functools
import math
import random

DRAWS = 1000
QUESTION_KINDS = ("visual_questions", "questions")
TEXT_KINDS = ("texts",)
CLASSES = ("text", "vision", "protected")
REMOTE_HOPS = (1, 2)
LEAST_LOSS = 1e-12  # stands for none on a logarithmic axis


@functools.lru_cache(maxsize=None)
def draws(count):
    """The same samples for every method: differences between methods are paired."""
    generator = random.Random(count)
    return [generator.choices(range(count), k=count) for _ in range(DRAWS)]


def quantiles(values):
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[int(0.975 * len(ordered)) - 1]


class Ratio:
    """Sum of `tops` over sum of `bottoms` of samples, kind by kind; samples are drawn whole and within their kind."""

    def __init__(self, parts):
        """`parts`: for each kind (tops, bottoms)."""
        self.parts = parts

    def mean(self):
        return self._of(sum(map(sum, (tops for tops, _ in self.parts))), sum(map(sum, (bottoms for _, bottoms in self.parts))))

    @functools.cached_property
    def drawn(self):
        results = []
        for draw in range(DRAWS):
            top = bottom = 0.0
            for tops, bottoms in self.parts:
                chosen = draws(len(tops))[draw]
                top += sum(map(tops.__getitem__, chosen))
                bottom += sum(map(bottoms.__getitem__, chosen))
            results.append(self._of(top, bottom))
        return results

    def interval(self):
        return quantiles(self.drawn)

    @staticmethod
    def _of(top, bottom):
        return top / bottom if bottom else 0.0


def kinds_of(measured, kinds):
    return [kind for kind in kinds if kind in measured["kinds"]]


def kl(samples, measured, kinds=QUESTION_KINDS):
    """Nats per scored token."""
    return Ratio([(measured["kinds"][kind]["kl"], samples[kind]["scored"]) for kind in kinds_of(measured, kinds)])


def nll(samples, measured, kinds=TEXT_KINDS):
    return Ratio([(measured["kinds"][kind]["nll"], samples[kind]["scored"]) for kind in kinds_of(measured, kinds)])


def perplexity(samples, measured):
    """(mean, low, high)."""
    ratio = nll(samples, measured)
    return tuple(map(math.exp, (ratio.mean(), *ratio.interval())))


def kept(measured, right_at_level_0, task=None, samples=None):
    """Of the questions that level 0 answers right, those whose every token stays the most probable one."""
    parts = []
    for kind in kinds_of(measured, QUESTION_KINDS):
        flips, right = measured["kinds"][kind]["flips"], right_at_level_0[kind]
        chosen = [bool(r) and (task is None or samples[kind]["task"][i] == task) for i, r in enumerate(right)]
        parts.append(([int(c and not f) for c, f in zip(chosen, flips)], [int(c) for c in chosen]))
    return Ratio(parts)


def still_right(measured, level_0):
    """The same by answers that were generated."""
    parts = []
    for kind in kinds_of(measured, QUESTION_KINDS):
        before, after = level_0["kinds"][kind]["right"], measured["kinds"][kind]["right"]
        parts.append(([b and a for b, a in zip(before, after)], before))
    return Ratio(parts)


def right(measured):
    return Ratio([(measured["kinds"][kind]["right"], [1] * len(measured["kinds"][kind]["right"]))
                  for kind in kinds_of(measured, QUESTION_KINDS)])


def skip_ratio(measured, kinds=QUESTION_KINDS, classes=("text", "vision")):
    """Of text and vision pairs."""
    run = skipped = 0
    for kind in kinds_of(measured, kinds):
        sums = measured["kinds"][kind]["sums"]
        run += sum(sums["pairs_run"][CLASSES.index(name)] for name in classes)
        skipped += sum(sums["pairs_skipped"][CLASSES.index(name)] for name in classes)
    return skipped / (run + skipped) if run + skipped else 0.0


def remote_bytes(measured, kinds):
    return sum(measured["kinds"][kind]["sums"]["bytes_sent"][hop] for kind in kinds_of(measured, kinds) for hop in REMOTE_HOPS)


def loss_at(positions, losses, position):
    """The loss at a position on lines over its logarithm, the last ones drawn on; positions ascend."""
    last = len(positions) - 2
    i = next((i for i in range(last + 1) if position <= positions[i + 1]), last)
    part = (position - positions[i]) / (positions[i + 1] - positions[i])
    low, high = (math.log(max(loss, LEAST_LOSS)) for loss in losses[i:i + 2])
    return math.exp(low + part * (high - low))


def at_loss(losses, amounts, loss):
    """The amount at a loss, on lines over the logarithm of the loss; None outside. Losses ascend, or are made to."""
    points = sorted((value, amount) for value, amount in zip(losses, amounts) if value > 0)
    for (low, low_amount), (high, high_amount) in zip(points, points[1:]):
        if low <= loss <= high:
            part = math.log(loss / low) / math.log(high / low) if high > low else 0.0
            return low_amount + part * (high_amount - low_amount)
    return None
