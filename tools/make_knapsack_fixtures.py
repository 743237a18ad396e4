#!/usr/bin/env python3
"""Writes knapsack instances with the optimal values that SciPy's MILP solver (HiGHS) finds, for tests/planning.

    tools/make_knapsack_fixtures.py tests/planning/fixtures/knapsacks.json

"formats" have one budget: items of [size, cost] choices. "tiers" have four: items of [cost, use, use, use, use] choices, as
experts have that may rest on a device, in host memory or on disk, with a bound on the loss. Needs numpy and scipy.
"""
import json
import sys

import numpy as np
from scipy.optimize import LinearConstraint, milp

BITS = [2.75, 3.75, 4.25, 4.75, 8.25, 16.0]
SECONDS_PER_BIT = [1 / 30, 1 / 3, 1 / 0.3]  # device, host, disk


def optimum(items, budgets):
    """items: for each item, choices of (cost, uses). The least cost of one choice each within the budgets."""
    costs = np.array([cost for item in items for cost, _ in item])
    uses = np.array([use for item in items for _, use in item]).T
    picks = np.zeros((len(items), len(costs)))
    first = 0
    for i, item in enumerate(items):
        picks[i, first:first + len(item)] = 1
        first += len(item)
    scale = max(costs.max(), 1e-300)
    result = milp(costs / scale, integrality=np.ones(len(costs)), bounds=(0, 1),
                  constraints=[LinearConstraint(picks, 1, 1), LinearConstraint(uses, -np.inf, budgets)],
                  options={"mip_rel_gap": 1e-9, "time_limit": 60})
    if result.status != 0:
        raise RuntimeError(result.message)
    return float(result.fun * scale)


def short(value):
    return float(f"{value:.6g}")


def format_instance(rng, num_items, mean_bits):
    items = []
    for sensitivity in rng.lognormal(0, 1.2, num_items):
        weights = int(rng.choice([24576, 24576, 32768]))
        items.append([[int(weights * bits / 8), 0.0 if bits == 16 else short(sensitivity * 4.0**-bits)]
                      for bits in BITS])
    budget = int(24576 * mean_bits / 8 * num_items)
    solved = optimum([[(cost, [size]) for size, cost in item] for item in items], [budget])
    return {"items": items, "budget": budget, "optimum": solved}


def tier_instance(rng, num_items, loss, device, host):
    items = []
    for use, sensitivity in zip(rng.lognormal(0, 1, num_items), rng.lognormal(0, 0.8, num_items)):
        item = []
        for bits in BITS:
            lost = 0.0 if bits == 16 else short(use * sensitivity * 4.0**-bits)
            for tier, seconds in enumerate(SECONDS_PER_BIT):
                uses = [lost, 0.0, 0.0, 0.0]
                uses[1 + tier] = bits
                item.append([short(use * bits * seconds)] + uses)
        items.append(item)
    budgets = [loss * num_items, device * num_items, host * num_items, 16.0 * num_items]
    solved = optimum([[(choice[0], choice[1:]) for choice in item] for item in items], budgets)
    return {"items": items, "budgets": budgets, "optimum": solved}


def main():
    rng = np.random.default_rng(1)
    formats = [format_instance(rng, n, bits) for n, bits in
               [(1, 5.0), (2, 3.5), (13, 3.0), (32, 4.0), (32, 6.0), (64, 4.5), (97, 3.3), (192, 4.0)]]
    tiers = [tier_instance(rng, n, loss, device, host) for n, loss, device, host in
             [(8, 0.02, 3.0, 4.0), (24, 0.01, 1.5, 2.0), (32, 0.004, 3.0, 1.0), (48, 0.02, 0.0, 3.0), (64, 0.01, 2.0, 0.0)]]
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump({"formats": formats, "tiers": tiers}, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
