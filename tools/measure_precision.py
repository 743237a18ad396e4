#!/usr/bin/env python3
"""Measures how planned formats of experts pay on the demo model, and writes tables and a picture into docs/.

    tools/measure_precision.py --binary build/cpu-release/skipper

Profile, plans and orders come from models/demo/calibration; every figure is from models/demo/eval, which nothing else is chosen
or tuned on. About half an hour of one core. What was measured is kept in --work: a run that was stopped goes on, and another
run only writes; after a change of the program's arithmetic, remove that folder. Needs Python's standard library.
"""

import argparse
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from precision_proof import report  # noqa: E402
from precision_proof.assignments import ExpertShape, Maker, Profile  # noqa: E402
from precision_proof.results import Results  # noqa: E402
from skipping_proof.runs import Workplace  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="a release build of skipper")
    parser.add_argument("--model", default=os.path.join(ROOT, "models/demo"), help="with calibration/ and eval/")
    parser.add_argument("--work", default=os.path.join(ROOT, "build/precision_proof"), help="folder for what was measured")
    parser.add_argument("--page", default=os.path.join(ROOT, "docs/precision.md"), help="its blocks of tables are replaced")
    parser.add_argument("--samples", type=int, default=480, help="of the test set, windows of texts included (default: 480)")
    parser.add_argument("--text_windows", type=int, default=12, help="of the samples (default: 12)")
    parser.add_argument("--profile_samples", type=int, default=128, help="of the calibration data (default: 128)")
    parser.add_argument("--seeds", type=int, default=20, help="of random assignments (default: 20)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--unverified", action="store_true", help="take plans as predicted, without 'plan --verify'")
    return parser.parse_args()


def make_profile(arguments):
    path = os.path.join(arguments.work, "profile.json")
    if not os.path.exists(path):
        data = os.path.join(arguments.model, "calibration")
        command = [arguments.binary, "profile", "--model", arguments.model, "--data", data, "--limit",
                   str(arguments.profile_samples), "--threads", str(arguments.threads), "--out", path]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}\nended with status {result.returncode}:\n{result.stderr}")
    return Profile(path, ExpertShape(arguments.model))


def main():
    arguments = parse()
    workplace = Workplace(arguments.binary, arguments.model, arguments.work, arguments.threads, arguments.samples)
    profile = make_profile(arguments)
    maker = Maker(arguments.binary, arguments.model, profile, workplace.folder, not arguments.unverified)
    limits = ("--limit", arguments.samples, "--text_windows", arguments.text_windows)
    try:
        results = Results(workplace, maker, profile, limits, arguments.seeds)
    finally:
        workplace.close()
    report.write(results, arguments.page)


if __name__ == "__main__":
    main()
