#!/usr/bin/env python3
"""Tests of the parts of measure_skipping.py that need no model: thresholds, search, intervals, blocks of a page and pictures."""

import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from skipping_proof import figures, report  # noqa: E402
from skipping_proof.methods import ScoreQuantiles  # noqa: E402
from skipping_proof.pictures import Panel, picture  # noqa: E402
from skipping_proof.search import Search  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


class ScoreQuantilesTest(unittest.TestCase):
    def test_thresholds_ascend_from_none_to_all(self):
        scores = ScoreQuantiles([0.1, 0.2, 0.4, 0.8], [[5, 3, 2], [1, 0, 9]], [0.75, 0.25])
        found = [scores.at(share / 20) for share in range(21)]
        self.assertEqual(found, sorted(found))
        self.assertEqual(found[0], 0)
        self.assertGreater(found[-1], 0.75 * 0.8)

    def test_an_alpha_of_zero_is_no_score(self):
        scores = ScoreQuantiles([0.1, 0.2], [[4], [4]], [1.0, 0.0])
        self.assertGreater(scores.at(0.01), 0)


class SearchTest(unittest.TestCase):
    @staticmethod
    def measure(text, vision):
        """Vision gains at a tenth of text's loss."""
        return 0.6 * text**1.5 + 0.4 * vision**2 - 0.03 * text * vision, text**3 + 0.1 * vision**3

    def test_one_number_meets_the_target(self):
        for target in (0.1, 0.5, 0.9):
            self.assertAlmostEqual(Search(self.measure).one_number(target).gain, target, delta=0.01)
        self.assertIsNone(Search(lambda text, vision: (0.7 * text, text)).one_number(0.75))

    def test_two_numbers_lose_hardly_more_than_the_best_of_a_fine_grid(self):
        fine = [(t / 50, v / 50) for t in range(51) for v in range(51)]
        for target in (0.25, 0.5, 0.75, 0.9):
            found = Search(self.measure).two_numbers(target)
            best = min(self.measure(*shares)[1] for shares in fine if self.measure(*shares)[0] >= target)
            self.assertAlmostEqual(found.gain, target, delta=0.02)
            self.assertLess(found.loss, 1.15 * best)
        self.assertIsNone(Search(lambda text, vision: (0.3 * text + 0.3 * vision, text)).two_numbers(0.75))


class FiguresTest(unittest.TestCase):
    def test_a_ratio_of_equal_samples_has_no_width(self):
        ratio = figures.Ratio([([2.0] * 7, [4] * 7), ([1.0], [2])])
        self.assertEqual(ratio.mean(), 0.5)
        self.assertEqual(ratio.interval(), (0.5, 0.5))

    def test_an_interval_holds_the_mean_and_narrows_with_the_samples(self):
        few, many = (figures.Ratio([([i % 5 for i in range(count)], [1] * count)]) for count in (20, 500))
        for ratio in (few, many):
            low, high = ratio.interval()
            self.assertTrue(low < ratio.mean() < high)
        self.assertLess(many.interval()[1] - many.interval()[0], 0.5 * (few.interval()[1] - few.interval()[0]))

    def test_lines_over_the_logarithm_of_the_loss(self):
        self.assertAlmostEqual(figures.at_loss([0.1, 0.001], [0.2, 0.8], 0.01), 0.5)
        self.assertIsNone(figures.at_loss([0.1, 0.001], [0.2, 0.8], 0.2))
        self.assertAlmostEqual(figures.loss_at([0.25, 0.75], [0.001, 0.1], 0.5), 0.01)
        self.assertAlmostEqual(figures.loss_at([0.25, 0.75], [0.001, 0.1], 1.0), 1.0)


class ReportTest(unittest.TestCase):
    def test_blocks_are_replaced_and_the_rest_stays(self):
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "page.md")
            with open(page, "w", encoding="utf-8") as file:
                file.write("a\n<!-- measured: kl -->\nold\n<!-- end -->\nb\n<!-- measured: kl text -->\n<!-- end -->\n")
            report.replace_blocks(page, {"kl": r"\1 new", "kl text": "more"})
            with open(page, encoding="utf-8") as file:
                self.assertEqual(file.read(), "a\n<!-- measured: kl -->\n\\1 new\n<!-- end -->\nb\n"
                                              "<!-- measured: kl text -->\nmore\n<!-- end -->\n")
            with self.assertRaises(SystemExit):
                report.replace_blocks(page, {"missing": ""})

    def test_pictures_are_well_formed_and_inside_their_frame(self):
        curves = [("a < b", [(10, 0.01), (50, 0.2)]), ("c", [(0, 0.0, 0.0, 0.1), (100, 3.0, 2.0, 4.0)])]
        panels = [Panel("left", curves, (0, 100)), Panel("right", curves[1:], (0, 100), (0, 5))]
        root = xml.etree.ElementTree.fromstring(picture(panels, "x & y", "loss"))
        _, _, width, height = map(float, root.get("viewBox").split())
        lines = root.findall(f".//{SVG}polyline")
        self.assertEqual(len(lines), 3)
        for line in lines:
            for x, y in (map(float, place.split(",")) for place in line.get("points").split()):
                self.assertTrue(0 <= x <= width and 0 <= y <= height)


if __name__ == "__main__":
    unittest.main()
