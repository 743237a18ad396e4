"""The ways to skip that are compared: operating points of one or two numbers between 0 (nothing) and 1 (as much as it can)."""

import bisect
import dataclasses
import json
import os
import sys
import typing

from skipping_proof import expert_scale

CLASSES = ("text", "vision")
PROTECTED_SHARE = 0.02  # of a prompt's tokens, as MC-MoE
LARGEST_BETA = 1000.0   # that an operating point may have
GENERATED_SHARE = 0.7   # of the text threshold, for generated tokens: of 0, .35, .7, 1, 1.4 the best on calibration data
RARE_MARGIN = 0.05      # p_1 - p_2 under which a token keeps all its experts


class ScoreQuantiles:
    """Thresholds by the share of pairs whose alpha * p lies under them, from the histograms of calibration.json."""

    def __init__(self, edges, counts, alpha):
        """`counts` and `alpha` have one entry for each MoE layer."""
        pairs = sorted((weight * (low * high) ** 0.5, count) for row, weight in zip(counts, alpha)
                       for low, high, count in zip(edges, edges[1:], row) if count > 0 and weight > 0)
        total, seen = sum(count for _, count in pairs), 0
        self._scores, self._shares = [0.0], [0.0]
        for score, count in pairs:
            seen += count
            self._scores.append(score)
            self._shares.append(seen / total)
        self._scores.append(max(alpha) * 1.0001)  # over every score: p is at most 1
        self._shares.append(1.0 + 1e-9)

    def at(self, share):
        """0 at 0; between two scores on the line."""
        if share <= 0:
            return 0.0
        i = max(1, min(bisect.bisect_left(self._shares, min(share, 1.0)), len(self._scores) - 1))
        if share >= 1:
            return self._scores[-1]
        low, high = self._shares[i - 1], self._shares[i]
        part = (share - low) / (high - low) if high > low else 1.0
        return self._scores[i - 1] + part * (self._scores[i] - self._scores[i - 1])


class Scores:
    """One choice of alpha, with the thresholds that it makes."""

    def __init__(self, calibration, alpha):
        self.alpha = alpha
        edges, counts = calibration["scores"]["edges"], {name: calibration["scores"][name] for name in CLASSES}
        self.by_class = {name: ScoreQuantiles(edges, counts[name], alpha[name]) for name in CLASSES}
        # Both classes in one list, for one threshold.
        self.pooled = ScoreQuantiles(edges, counts["text"] + counts["vision"], alpha["text"] + alpha["vision"])


@dataclasses.dataclass(frozen=True)
class Method:
    name: str
    title: str
    point: typing.Callable  # of (text share, vision share)
    has_two: bool = False   # numbers, one for each class; otherwise both are the same
    ranks: int = 1


def equal_alpha(num_layers):
    return {name: [1.0 / num_layers] * num_layers for name in CLASSES}


def raw_alpha(calibration):
    """KL of the bypassed layers themselves: the exponent 1 of MoDES."""
    return {name: [loss / sum(losses) for loss in losses] for name, losses in calibration["bypass_kl"].items()}


def load_ratings(model):
    """What `skipper experts` wrote of the model; without it the methods that need it are left out."""
    path = os.path.join(model, "experts.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    print(f"diep and ace are left out: {path} is missing; 'skipper experts' writes it", file=sys.stderr)
    return None


def document(alpha, ranks=1, **fields):
    """An operating point as `skipper measure` reads it."""
    point = {"version": 1, "alpha": alpha, **fields}
    if ranks > 1:
        point["placement"] = {"ranks": ranks, "ranks_per_node": ranks}
    return point


class Methods:
    """All methods of one calibrated model."""

    def __init__(self, model, only=()):
        """`only`: names of the searched methods that are wanted; all without."""
        self.only = only
        with open(os.path.join(model, "calibration.json"), encoding="utf-8") as file:
            calibration = json.load(file)
        self.num_layers = len(calibration["alpha"]["text"])
        self.plain = Scores(calibration, equal_alpha(self.num_layers))
        self.raw = Scores(calibration, raw_alpha(calibration))
        self.calibrated = Scores(calibration, calibration["alpha"])
        # 7 digits are more than a float32 has: the same text everywhere.
        self.ratings = load_ratings(model)
        self.expert_scale = [float(f"{scale:.7g}") for scale in expert_scale.expert_scales(model, self.num_layers)]

    # Points

    def score_point(self, scores, shares, ranks=1, **fields):
        tau = {name: scores.by_class[name].at(share) for name, share in zip(CLASSES, shares)}
        return document(scores.alpha, ranks, tau=tau, **fields)

    def generated_point(self, shares):
        tau = {name: self.calibrated.by_class[name].at(share) for name, share in zip(CLASSES, shares)}
        return document(self.calibrated.alpha, tau=tau, tau_generated=GENERATED_SHARE * tau["text"])

    def single_point(self, scores, share):
        tau = scores.pooled.at(share)
        return document(scores.alpha, tau={"text": tau, "vision": tau})

    def both_views_point(self, shares, quantiles):
        """Low by capacity and by response: by the larger of the two. The highest threshold takes all but the first."""
        scale = [max(views) for views in zip(self.ratings["capacity"], self.ratings["response"])]
        tau = {name: quantiles[name].at(share) * (1 + share * (max(scale) - 1)) for name, share in zip(CLASSES, shares)}
        return document(self.plain.alpha, tau=tau, expert_scale=scale, protect_top1=True)

    def similar_point(self, share):
        """At one half DiEP's own threshold: the median of p_2 / p_1."""
        multiple = share / (1 - share) if share < 1 else LARGEST_BETA
        beta = {name: [min(multiple * median, LARGEST_BETA) for median in self.ratings["second_share"][name]] for name in CLASSES}
        return document(self.plain.alpha, pair_rule="similar", beta=beta, expert_similarity=self.ratings["similarity"])

    def mass_point(self, rule, shares, **fields):
        beta = {name: [share] * self.num_layers for name, share in zip(CLASSES, shares)}
        return document(self.plain.alpha, pair_rule=rule, beta=beta, **fields)

    def kept_point(self, kept, **fields):
        return document(self.plain.alpha, pair_rule="top_k", kept_k={name: kept for name in CLASSES}, **fields)

    def destination_point(self, shares, ranks, score="sum_of_squares", pair_shares=(0, 0)):
        """A single pair's alpha * p becomes (alpha * p)^2 / alpha: what the rule compares for a destination of one pair."""
        tau_dst = {}
        for name, share in zip(CLASSES, shares):
            tau = self.calibrated.by_class[name].at(share)
            if score == "sum_of_squares":
                tau = tau * tau * self.num_layers
            tau_dst[name] = {"node": tau, "network": tau}
        return self.score_point(self.calibrated, pair_shares, ranks, exempt_local=any(pair_shares), tau_dst=tau_dst,
                                destination_score=score)

    # Methods

    def reduced_k(self, top_k):
        """(title, point of a skip ratio): a fraction keeps one expert more for that share of the tokens."""
        return [] if self.only else [("reduced k", lambda ratio: self.kept_point(top_k * (1 - ratio))),
                ("reduced k, renormalised", lambda ratio: self.kept_point(top_k * (1 - ratio), renormalize=True))]

    def searched(self):
        return [method for method in self._table() if not self.only or method.name in self.only]

    def _rated(self):
        """Those that look at single experts."""
        if not self.ratings:
            return []
        pooled = dict.fromkeys(CLASSES, self.plain.pooled)
        return [
            Method("diep", "relative to the first and their likeness (DiEP)", lambda t, v: self.similar_point(t)),
            Method("ace", "one threshold on p by two views of the expert (ACE's kind)",
                   lambda t, v: self.both_views_point((t, v), pooled)),
            Method("ace_two", "two thresholds on p by two views of the expert",
                   lambda t, v: self.both_views_point((t, v), self.plain.by_class), has_two=True),
        ]

    def _table(self):
        two = lambda rule, **fields: lambda t, v: self.mass_point(rule, (t, v), **fields)
        score = lambda scores, **fields: lambda t, v: self.score_point(scores, (t, v), **fields)
        return [
            Method("relative", "relative to the first, renormalised (NAEE for k = 2)", two("relative", renormalize=True)),
            Method("naee", "tail mass, renormalised (NAEE)", two("tail_mass", renormalize=True)),
            Method("mc_moe", "tail mass, renormalised, 2 % of tokens protected (MC-MoE)",
                   two("tail_mass", renormalize=True, protect_attention=PROTECTED_SHARE)),
            *self._rated(),
            Method("tail_mass", "tail mass, one threshold", two("tail_mass")),
            Method("adaptive_k", "tail mass by class (adaptive k)", two("tail_mass"), has_two=True),
            Method("single", "one threshold on p", lambda t, v: self.single_point(self.plain, t)),
            Method("gmlg", "GMLG only: one threshold on alpha p", lambda t, v: self.single_point(self.raw, t)),
            Method("dmt", "DMT only: two thresholds on p", score(self.plain), has_two=True),
            Method("modes", "GMLG + DMT, exponent 1 (MoDES)", score(self.raw), has_two=True),
            Method("calibrated", "GMLG + DMT, calibrated exponents", score(self.calibrated), has_two=True),
            Method("weights", "calibrated, second score from the weights",
                   score(self.calibrated, expert_scale=self.expert_scale), has_two=True),
            Method("generated", "calibrated, generated tokens at 0.7 of the threshold", lambda t, v: self.generated_point((t, v)),
                   has_two=True),
            Method("margin", "calibrated, rare cases spared (p₁ − p₂ under .05)",
                   score(self.calibrated, protect_margin=RARE_MARGIN), has_two=True),
            Method("exempt", "calibrated with local exemption, 4 ranks", score(self.calibrated, ranks=4, exempt_local=True),
                   has_two=True, ranks=4),
            Method("destination", "destination rule (sum of p²), 4 ranks", lambda t, v: self.destination_point((t, v), 4),
                   has_two=True, ranks=4),
        ]

    def byte_rules(self):
        """(name, title, point of (text share, vision share, ranks)): what is compared by bytes."""
        score = lambda shares, ranks, **fields: self.score_point(self.calibrated, shares, ranks, **fields)
        return [
            ("pair", "pair rule", lambda t, v, ranks: score((t, v), ranks)),
            ("exempt", "pair rule, local exemption", lambda t, v, ranks: score((t, v), ranks, exempt_local=True)),
            ("squares", "destination rule, sum of p²", lambda t, v, ranks: self.destination_point((t, v), ranks)),
            ("sum", "destination rule, sum of p", lambda t, v, ranks: self.destination_point((t, v), ranks, "sum")),
            ("both", "destination rule with half the pair rule",
             lambda t, v, ranks: self.destination_point((t, v), ranks, pair_shares=(t / 2, v / 2))),
        ]
