"""Methods compared by the pairs they skip: what was measured on the test set, ready for tables."""

import dataclasses

from skipping_proof import figures, stages


@dataclasses.dataclass(frozen=True)
class Point:
    """One method at one wanted skip ratio."""

    title: str
    name: str
    wanted: float
    skipped: float       # of text and vision pairs of questions
    skipped_text: float  # of pairs in texts
    kl: figures.Ratio
    kept: figures.Ratio
    perplexity: tuple
    measured: dict


class PairResults:
    """Everything of the stages `test` and `answers`."""

    def __init__(self, workplace, methods):
        self.by_ranks = {ranks: stages.TestSet(workplace, ranks).start() for ranks in (1, 4)}
        self.samples = self.by_ranks[1].samples
        answers = stages.answers_measurer(workplace).start()
        self.answers = answers
        self.right_at_level_0 = {kind: answers.level_0["kinds"][kind]["right"] for kind in figures.QUESTION_KINDS}
        self.points, self.generated = [], {}
        for title, name, ratio, ranks, point in stages.test_points(workplace, methods):
            self.points.append(self._point(title, name, ratio, self.by_ranks[ranks].measure(point)))
            if answers.knows(point):
                self.generated[name, ratio] = answers.measure(point)

    def _point(self, title, name, ratio, measured):
        return Point(title, name, ratio, figures.skip_ratio(measured), figures.skip_ratio(measured, figures.TEXT_KINDS),
                     figures.kl(self.samples, measured), figures.kept(measured, self.right_at_level_0),
                     figures.perplexity(self.samples, measured), measured)

    def titles(self):
        return list(dict.fromkeys(point.title for point in self.points))

    def find(self, name, ratio):
        """By name or title; nothing where the method does not reach the ratio."""
        return next((p for p in self.points if name in (p.name, p.title) and p.wanted == ratio), None)

    def of(self, title):
        return [point for point in self.points if point.title == title]

    def tasks(self):
        return [(kind, task) for kind in figures.QUESTION_KINDS for task in sorted(set(self.samples[kind]["task"]))]

    def kept_of_task(self, point, task):
        return figures.kept(point.measured, self.right_at_level_0, task, self.samples)
