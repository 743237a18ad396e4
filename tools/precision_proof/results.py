"""Measures every assignment on the test set, and gives its figures with paired intervals."""

from precision_proof.assignments import AVERAGES
from skipping_proof import figures

ALL_KINDS = (*figures.QUESTION_KINDS, *figures.TEXT_KINDS)


class Row:
    """One assignment; or several, whose figures are averaged sample by sample."""

    def __init__(self, results, title, all_formats):
        self._results, self.title, self.formats = results, title, all_formats[0]
        self.all_measured = [results.measurer.measure({"expert_formats": formats}) for formats in all_formats]
        shape = results.profile.shape
        self.bits, self.bytes = shape.mean_bits(self.formats), shape.total_bytes(self.formats)

    def lists(self, field, kinds):
        """For each kind the values of its samples, averaged over the assignments."""
        columns = []
        for kind in figures.kinds_of(self.all_measured[0], kinds):
            together = zip(*(measured["kinds"][kind][field] for measured in self.all_measured))
            columns.append([sum(values) / len(self.all_measured) for values in together])
        return columns

    def kl(self, kinds=ALL_KINDS):
        return figures.Ratio(list(zip(self.lists("kl", kinds), self._results.scored(kinds))))

    def each_kl(self):
        """Of the assignments one by one."""
        return [figures.kl(self._results.measurer.samples, measured, ALL_KINDS).mean() for measured in self.all_measured]

    def over(self, other, kinds=ALL_KINDS):
        """This row's KL over another's, sample by sample under the same draws."""
        return figures.Ratio(list(zip(self.lists("kl", kinds), other.lists("kl", kinds))))

    def perplexity(self):
        ratio = figures.Ratio(list(zip(self.lists("nll", figures.TEXT_KINDS), self._results.scored(figures.TEXT_KINDS))))
        return tuple(map(figures.math.exp, (ratio.mean(), *ratio.interval())))

    def kept(self, task=None):
        """Of the answers that unrounded experts give right, those that stay: every token is still the most probable."""
        samples, right = self._results.measurer.samples, self._results.right
        all_parts = [figures.kept(measured, right, task, samples).parts for measured in self.all_measured]
        parts = []
        for same_kind in zip(*all_parts):
            tops = [sum(values) / len(all_parts) for values in zip(*(tops for tops, _ in same_kind))]
            parts.append((tops, same_kind[0][1]))
        return figures.Ratio(parts)


class Results:
    """All rows; whatever was measured before is taken from the caches."""

    def __init__(self, workplace, maker, profile, limits, num_seeds):
        self.profile, self.num_seeds = profile, num_seeds
        self.measurer = workplace.measurer("formats", "eval", 1, *limits).start()
        answers = workplace.measurer("answers", "eval", 1, *limits, "--answers", "true").start()
        self.right = {kind: lists["right"] for kind, lists in answers.level_0["kinds"].items() if "right" in lists}
        self.unrounded = Row(self, "unrounded", [maker.uniform("bf16")])
        self.by_average = {average: self._rows_of(maker, average) for average in AVERAGES}
        planned = lambda name: Row(self, "planned", [maker.planned(profile.shape.bits(name))])
        self.at_uniform = {name: (planned(name), Row(self, name, [maker.uniform(name)])) for name in profile.formats[1:]}
        self.knob = [(count, Row(self, str(count), [formats])) for count, formats in maker.knob()]

    def scored(self, kinds):
        return [self.measurer.samples[kind]["scored"] for kind in kinds if kind in self.measurer.samples]

    def _rows_of(self, maker, average):
        low, high = self.profile.neighbours(average)
        pair = f"{low} and {high}"
        seeds = [maker.by_chance(average, seed) for seed in range(self.num_seeds)]
        return {"planned": Row(self, "planned", [maker.planned(average)]),
                "uniform": Row(self, f"layers in order: {pair}", [maker.by_layers(average)]),
                "random": Row(self, f"random, {len(seeds)} seeds: {pair}", seeds),
                "frequency": Row(self, f"most used first: {pair}", [maker.by_frequency(average)])}
