"""Finds the numbers of a method that skip a wanted share at the least loss, on calibration data."""

import dataclasses

TOLERANCE = 0.004  # of a share
MAX_SOLVE_STEPS = 9
MAX_CORRECTIONS = 4
CURVE_SHARES = (0.0, 0.25, 0.45, 0.6, 0.75, 0.88, 1.0)
MODEL_STEPS = 100
WALK_STEP = 0.08
MAX_WALK_STEPS = 2


@dataclasses.dataclass(frozen=True)
class Found:
    shares: tuple  # text, vision
    gain: float
    loss: float


class Search:
    """`measure(text share, vision share)` gives (gain, loss); it is asked for a point once."""

    def __init__(self, measure):
        self._measure = measure
        self._known = {}

    def at(self, text, vision):
        key = (round(text, 5), round(vision, 5))
        if key not in self._known:
            gain, loss = self._measure(*key)
            self._known[key] = Found(key, gain, loss)
        return self._known[key]

    def one_number(self, target):
        """The same share for both classes; nothing when even 1 gains too little."""
        return self._solve(lambda share: self.at(share, share), target)

    def two_numbers(self, target):
        """Starts where the classes' own curves, added up, lose least; walks along the line of equal gain while the loss falls."""
        start = self._modelled_vision_share(target)
        best = self._at_vision_share(start, target)
        for step in (WALK_STEP, -WALK_STEP):
            vision = start
            for _ in range(MAX_WALK_STEPS):
                vision = min(max(vision + step, 0.0), 1.0)
                found = self._at_vision_share(vision, target)
                if found is None or (best is not None and found.loss >= best.loss):
                    break
                best = found
        return best

    def _at_vision_share(self, vision, target):
        """Text shares by the classes' own curves, corrected by what they miss: gains nearly add up."""
        without = self.at(0.0, vision)
        if without.gain > target + TOLERANCE:
            return None
        text = [self.at(share, 0.0) for share in CURVE_SHARES]
        gains = [one.gain for one in text]
        wanted, best = target - without.gain, without
        for _ in range(MAX_CORRECTIONS):
            found = self.at(share_of(gains, wanted), vision)
            best = min(best, found, key=lambda one: abs(one.gain - target))
            if abs(best.gain - target) < TOLERANCE or found.shares[0] >= 1.0:
                break
            wanted += target - found.gain
        return best if best.gain > target - 3 * TOLERANCE else None

    def _modelled_vision_share(self, target):
        text = [self.at(share, 0.0) for share in CURVE_SHARES]
        vision = [self.at(0.0, share) for share in CURVE_SHARES]
        best_share, least = 1.0, float("inf")
        for i in range(MODEL_STEPS + 1):
            share = i / MODEL_STEPS
            gain, loss = interpolated([one.shares[1] for one in vision], vision, share)
            missing = target - gain
            if missing < 0 or missing > text[-1].gain:
                continue
            loss += interpolated([one.gain for one in text], text, missing)[1]
            if loss < least:
                best_share, least = share, loss
        return best_share

    @staticmethod
    def _solve(found_at, target):
        """Secants and bisections in turn; gain ascends with the share."""
        low, high = found_at(0.0), found_at(1.0)
        if high.gain < target - 2 * TOLERANCE:
            return None
        low_share, high_share, best = 0.0, 1.0, high
        for step in range(MAX_SOLVE_STEPS):
            if abs(best.gain - target) < TOLERANCE:
                break
            span = high.gain - low.gain
            part = (target - low.gain) / span if span > 0 and step % 2 == 0 else 0.5
            share = low_share + min(max(part, 0.05), 0.95) * (high_share - low_share)
            found = found_at(share)
            if found.gain < target:
                low, low_share = found, share
            else:
                high, high_share = found, share
            best = min((low, high, best), key=lambda one: abs(one.gain - target))
        return best


def share_of(gains, gain):
    """Where the curve over CURVE_SHARES has this gain, on the lines between its points; 0 and 1 outside."""
    for i in range(1, len(gains)):
        if gain <= gains[i]:
            part = (gain - gains[i - 1]) / (gains[i] - gains[i - 1]) if gains[i] > gains[i - 1] else 1.0
            return max(CURVE_SHARES[i - 1] + part * (CURVE_SHARES[i] - CURVE_SHARES[i - 1]), 0.0)
    return 1.0


def interpolated(positions, found, position):
    """(gain, loss) at a position on the lines between points; positions ascend."""
    for i in range(1, len(found)):
        if position <= positions[i] or i == len(found) - 1:
            width = positions[i] - positions[i - 1]
            part = min((position - positions[i - 1]) / width, 1.0) if width > 0 else 1.0
            low, high = found[i - 1], found[i]
            return low.gain + part * (high.gain - low.gain), low.loss + part * (high.loss - low.loss)
    return found[-1].gain, found[-1].loss
