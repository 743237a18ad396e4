#!/usr/bin/env python3
"""How prefill time falls with the bytes between hosts when the network is slow: emulated hosts, one model, several levels.

    bench/slow_network.py --perf build/cpu-release/bench/traffic_perf --model q8
    bench/slow_network.py --perf build/cpu-release/bench/traffic_perf --model q8 --rate 200mbit --rounds 5 --json figures.json

Runs traffic_perf over tests/testbed/netcluster (root only): 4 ranks on 2 hosts, a prompt on every rank, nothing skipped, shares
of the pairs (pair rule) and of the rows to other ranks (destination rule) skipped, with rows to the experts in BF16 and INT8.
Each round runs both formats without a limit and at --rate. Before times are compared, every case's logits must have the bits
that they have without the limit.

Two targets, both against BF16 rows without skipping, which is deduplicated already; seconds are medians over the rounds:
  each case               prefill time falls by at least 0.85 x the ratio of the bytes between hosts
  first with <= 50 %      of each rule and format: prefill time falls by at least 1.7 x
Exit status 1 when one is missed.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from command_line import OneLineParser, positive, sizes

NETCLUSTER = pathlib.Path(__file__).resolve().parent.parent / "tests/testbed/netcluster"
BASELINE = ("bf16", "none")
SHARE_OF_BYTE_RATIO = 0.85
HALF = 0.5
SPEEDUP_AT_HALF = 1.7
UNITS = {"": 1, "k": 10 ** 3, "m": 10 ** 6, "g": 10 ** 9}


@dataclasses.dataclass
class Case:
    """A level with rows in one format, over all rounds."""

    payload_dtype: str
    name: str
    skipped: float
    network_bytes: float
    busiest_host_bytes: float
    logits: str
    seconds: list  # at the rate
    unlimited_seconds: list

    def rule(self):
        """Format and what is skipped: "bf16 pairs"; a ladder of levels is one rule."""
        return f"{self.payload_dtype} {self.name.split()[0]}"

    def median(self):
        return statistics.median(self.seconds)

    def best_unlimited(self):
        """What the processors take, for comparison: the best, as other programs of the machine only add to it."""
        return min(self.unlimited_seconds)


def fail(message):
    sys.exit(f"slow_network.py: error: {message}")


def bytes_per_second(rate):
    """Of a rate as tc writes it."""
    text = rate.lower()
    if not text.endswith("bit") or not text[:-3].rstrip("kmg").replace(".", "", 1).isdecimal():
        fail(f"--rate {rate} is not a rate such as 100mbit")
    number = text[:-3].rstrip("kmg")
    return float(number) * UNITS[text[len(number):-3]] / 8


def run_once(arguments, payload_dtype, rate):
    """The report of one traffic_perf."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        slots = -(-arguments.ranks // arguments.hosts)
        limit = ["-r", rate] if rate else []
        command = [NETCLUSTER, "run", "-n", str(arguments.hosts), "-s", str(slots), *limit, "--",
                   "mpirun", "-n", str(arguments.ranks), os.path.abspath(arguments.perf), "--repeat", "1", "--threads", "1",
                   "--model", os.path.abspath(arguments.model), "--prompt", str(arguments.prompt),
                   "--payload_dtype", payload_dtype, "--pairs", ",".join(map(str, arguments.pairs)),
                   "--destinations", ",".join(map(str, arguments.destinations)), "--json", report]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            fail(f"traffic_perf ended with status {result.returncode}:\n{result.stderr}")
        return json.loads(pathlib.Path(report).read_text(encoding="utf-8"))


def case_of(payload_dtype, row):
    return Case(payload_dtype, row["name"], row["skipped"], row["network_bytes"], row["busiest_host_bytes"], row["logits"],
                seconds=[], unlimited_seconds=[])


def measure(arguments):
    """All cases by (format, name), rounds interleaved."""
    cases = {}
    for number in range(1, arguments.rounds + 1):
        for payload_dtype in ("bf16", "int8"):
            for rate in (None, arguments.rate):
                print(f"round {number} of {arguments.rounds}: {payload_dtype} rows, {rate or 'no limit'}", file=sys.stderr)
                for row in run_once(arguments, payload_dtype, rate)["cases"]:
                    case = cases.setdefault((payload_dtype, row["name"]), case_of(payload_dtype, row))
                    if row["logits"] != case.logits or row["network_bytes"] != case.network_bytes:
                        fail(f"{payload_dtype} rows, {row['name']}: logits or bytes differ from those without a limit")
                    (case.seconds if rate else case.unlimited_seconds).extend(row["seconds"])
    return cases


def first_at_half(cases):
    """The level of each rule with the most bytes among those with at most half of the baseline's."""
    limit = HALF * cases[BASELINE].network_bytes
    found = {}
    for case in sorted(cases.values(), key=lambda case: -case.network_bytes):
        if case.network_bytes <= limit and case.name != "none":
            found.setdefault(case.rule(), case)
    return found


def print_expectation(baseline, arguments):
    rate = bytes_per_second(arguments.rate)
    print(f"{baseline.network_bytes / 1e6:.1f} MB between hosts without skipping; the busiest host's "
          f"{baseline.busiest_host_bytes / 1e6:.1f} MB take {baseline.busiest_host_bytes / rate:.2f} s at {arguments.rate}; "
          f"without a limit the prefill takes {baseline.best_unlimited():.2f} s")


def print_table(cases):
    baseline = cases[BASELINE]
    print(f"{'rows':5} {'skipped':17} {'pairs':>7} {'MB':>7} {'bytes fall':>10} {'s':>7} {'time falls':>10} {'share':>6}  "
          f"{'s, no limit':>11}")
    missed = 0
    for case in cases.values():
        byte_ratio = baseline.network_bytes / case.network_bytes
        speedup = baseline.median() / case.median()
        is_met = speedup >= SHARE_OF_BYTE_RATIO * byte_ratio
        missed += not is_met
        print(f"{case.payload_dtype:5} {case.name:17} {100 * case.skipped:6.1f}% {case.network_bytes / 1e6:7.1f} "
              f"{byte_ratio:8.2f} x {case.median():7.2f} {speedup:8.2f} x {speedup / byte_ratio:6.2f}  "
              f"{case.best_unlimited():11.2f}{'' if is_met else '  MISSED'}")
    print(f"time falls by at least {SHARE_OF_BYTE_RATIO} x the ratio of bytes: {len(cases) - missed} of {len(cases)}")
    return missed


def print_first_at_half(cases):
    missed = 0
    for rule, case in first_at_half(cases).items():
        speedup = cases[BASELINE].median() / case.median()
        missed += speedup < SPEEDUP_AT_HALF
        print(f"{rule}: first level with <= 50 % of the bytes is {case.name} "
              f"({100 * case.network_bytes / cases[BASELINE].network_bytes:.1f} %): {speedup:.2f} x, wanted {SPEEDUP_AT_HALF} x: "
              f"{'met' if speedup >= SPEEDUP_AT_HALF else 'MISSED'}")
    return missed


def parse_arguments():
    parser = OneLineParser(__doc__)
    parser.add_argument("--perf", required=True, help="traffic_perf")
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--rate", default="100mbit", help="of each host's interface, each way, as for tc (default %(default)s)")
    parser.add_argument("--ranks", type=positive, default=4, help="default %(default)s")
    parser.add_argument("--hosts", type=positive, default=2, help="default %(default)s")
    parser.add_argument("--prompt", type=positive, default=256, help="tokens on every rank (default %(default)s)")
    parser.add_argument("--pairs", type=sizes, default=[25, 50, 63, 75, 88], help="per cent (default 25,50,63,75,88)")
    parser.add_argument("--destinations", type=sizes, default=[25, 40, 52, 65], help="per cent (default 25,40,52,65)")
    parser.add_argument("--rounds", type=positive, default=3, help="default %(default)s")
    parser.add_argument("--json", help="file for all cases")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    bytes_per_second(arguments.rate)
    cases = measure(arguments)
    if arguments.json:
        content = [dataclasses.asdict(case) for case in cases.values()]
        pathlib.Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print_expectation(cases[BASELINE], arguments)
    missed = print_table(cases) + print_first_at_half(cases)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
