#!/usr/bin/env python3
"""Writes what EPLB's published algorithm does with experts of equal size: the expected answers of replica_placement_test.

    tools/make_replica_fixtures.py tests/planning/fixtures/replicas.json

Written from the description in the README of github.com/deepseek-ai/EPLB, whose example is the first case. Needs only Python's
standard library.
"""
import json
import random
import sys

README_LOADS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
# experts, replicas, groups, nodes, gpus
SHAPES = [
    (8, 8, 1, 1, 8), (8, 12, 1, 1, 4), (16, 24, 4, 2, 8), (16, 20, 4, 4, 4), (12, 16, 3, 2, 8), (32, 48, 8, 4, 16),
    (64, 64, 1, 1, 8), (64, 80, 8, 2, 8), (128, 144, 1, 2, 16), (7, 9, 1, 1, 3), (1, 3, 1, 1, 3), (128, 128, 1, 1, 1),
]


def pack(loads, num_bins):
    """Items by falling load into the least loaded bin that is not full; returns the items of each bin in order."""
    capacity = len(loads) // num_bins
    bins = [[] for _ in range(num_bins)]
    if capacity == 1:
        return [[item] for item in range(num_bins)]
    totals = [0.0] * num_bins
    for item in sorted(range(len(loads)), key=lambda i: -loads[i]):
        target = min((b for b in range(num_bins) if len(bins[b]) < capacity), key=lambda b: totals[b])
        bins[target].append(item)
        totals[target] += loads[item]
    return bins


def replicate(loads, num_replicas):
    """The expert of each replica: all once, then again and again the one with the most load for each of its replicas."""
    replicas = list(range(len(loads)))
    counts = [1] * len(loads)
    while len(replicas) < num_replicas:
        busiest = max(range(len(loads)), key=lambda e: loads[e] / counts[e])
        replicas.append(busiest)
        counts[busiest] += 1
    return replicas, counts


def place_on_node(loads, experts, num_replicas, num_gpus):
    replicas, counts = replicate([loads[e] for e in experts], num_replicas)
    shares = [loads[experts[r]] / counts[r] for r in replicas]
    return [[experts[replicas[i]] for i in gpu] for gpu in pack(shares, num_gpus)]


def place(loads, num_replicas, num_groups, num_nodes, num_gpus):
    """The experts on each GPU, slot by slot."""
    if num_groups % num_nodes != 0:
        num_groups, num_nodes = 1, 1
    size = len(loads) // num_groups
    groups = [sum(loads[g * size:(g + 1) * size]) for g in range(num_groups)]
    gpus = []
    for node in pack(groups, num_nodes):
        experts = [group * size + i for group in node for i in range(size)]
        gpus += place_on_node(loads, experts, num_replicas // num_nodes, num_gpus // num_nodes)
    return gpus


def case(loads, shape):
    _, replicas, groups, nodes, gpus = shape
    return {"loads": loads, "num_replicas": replicas, "num_groups": groups, "num_nodes": nodes, "num_gpus": gpus,
            "expected": place(loads, replicas, groups, nodes, gpus)}


def main():
    random.seed(1)
    cases = [case(loads, (12, 16, 4, 2, 8)) for loads in README_LOADS]
    for shape in SHAPES:
        # No two loads, nor their halves and thirds, are equal: EPLB leaves open which of equals comes first.
        loads = [round(random.paretovariate(1.2) * 1000) + random.random() for _ in range(shape[0])]
        cases.append(case(loads, shape))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("[" + ",\n ".join(json.dumps(one) for one in cases) + "]\n")


if __name__ == "__main__":
    main()
