"""Bytes on the interfaces of two emulated hosts equal the payload counter within 1 %, in BF16, and in INT8 with skipping.

A visible skip where hosts cannot be emulated. bench/wire_bytes.py measures; more text makes its figure better.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import traffic_test

WIRE_BYTES = pathlib.Path(__file__).resolve().parent.parent.parent / "bench/wire_bytes.py"


def run(arguments, *flags):
    command = [sys.executable, str(WIRE_BYTES), "--binary", arguments.binary, "--model", arguments.model,
               "--characters", "40000", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "model"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    if not traffic_test.hosts_can_be_emulated():
        print("skipped: hosts cannot be emulated here (root, network namespaces and iproute2 are needed)")
        sys.exit(traffic_test.SKIPPED)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        some = traffic_test.write_json(folder, "some.json", traffic_test.operating_point(0.03, 0.06))
        for flags in ([], ["--payload-dtype", "int8", "--operating-point", some]):
            result = run(arguments, *flags)
            print(result.stdout)
            if result.returncode != 0 or "± 1.0 %: met" not in result.stdout:
                failures.append(f"{flags}: status {result.returncode}: {result.stdout}{result.stderr}")
        everything = traffic_test.write_json(folder, "everything.json", traffic_test.operating_point(2.0, 2.0))
        nothing_sent = run(arguments, "--operating-point", everything)
        if nothing_sent.returncode != 1 or "nothing to compare" not in nothing_sent.stderr:
            failures.append(f"without a row: status {nothing_sent.returncode}, {nothing_sent.stderr!r}")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
