#!/usr/bin/env python3
"""Measures how skipping experts pays on the demo model, and writes tables and pictures into docs/.

    tools/measure_skipping.py --binary build/cpu-release/skipper

Thresholds are chosen on models/demo/calibration, with models/demo/calibration.json; every figure is from models/demo/eval,
which nothing else is chosen or tuned on. Takes one to two hours of one core. What was measured is kept in --work: a run that was
stopped goes on, and another run only writes; after a change of the program's arithmetic, remove that folder. Needs Python's
standard library and mpirun.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from skipping_proof import batch_rules, report, stages  # noqa: E402
from skipping_proof.methods import Methods  # noqa: E402
from skipping_proof.runs import Workplace  # noqa: E402

STAGES = {**stages.STAGES, "batch_rules": batch_rules.measure}
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="a release build of skipper")
    parser.add_argument("--model", default=os.path.join(ROOT, "models/demo"),
                        help="with calibration/, calibration.json and eval/")
    parser.add_argument("--work", default=os.path.join(ROOT, "build/skipping_proof"), help="folder for what was measured")
    parser.add_argument("--page", default=os.path.join(ROOT, "docs/skipping.md"), help="its blocks of tables are replaced")
    parser.add_argument("--questions", type=int, default=1665, help="of the test set, spread evenly over it (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--only", default="", help="some of the searched methods, with commas between, for a part of the work")
    parser.add_argument("--stages", default=",".join([*STAGES, "report"]), help="some of them, with commas between")
    return parser.parse_args()


def main():
    arguments = parse()
    names = arguments.stages.split(",")
    unknown = [name for name in names if name not in STAGES and name != "report"]
    if unknown:
        sys.exit(f"measure_skipping.py: error: there is no stage '{unknown[0]}'; there are {', '.join(STAGES)}, report")
    workplace = Workplace(arguments.binary, arguments.model, arguments.work, arguments.threads, arguments.questions)
    methods = Methods(arguments.model, [name for name in arguments.only.split(",") if name])
    try:
        for name in names:
            if name != "report":
                STAGES[name](workplace, methods)
    finally:
        workplace.close()
    if "report" in names:
        report.write(workplace, methods, arguments.page)


if __name__ == "__main__":
    main()
