#!/usr/bin/env python3
"""Bytes on the network interfaces of emulated hosts against Skipper's own counters, on bulk prefill.

    bench/wire_bytes.py --binary build/skipper --model models/demo [--ranks 4] [--hosts 2] [--text FILE] [--rate 100mbit]

Runs `skipper eval` on a text twice over tests/testbed/netcluster (root only): as it is, and with tau = 2, so that no text token
is sent. The difference takes out what both have in common: start-up, plans, results, protected tokens. What is left on the
interfaces is compared with the difference of our counters, as payload (hidden rows) and as wire bytes (rows with their
metadata). With --rate both runs are also timed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

NETCLUSTER = pathlib.Path(__file__).resolve().parent.parent / "tests/testbed/netcluster"
MAX_DIFFERENCE_PERCENT = 1.0


def operating_point(tau, num_layers):
    alpha = [1.0 / num_layers] * num_layers
    return {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": tau, "vision": tau}}


def num_moe_layers(model):
    config = json.loads(pathlib.Path(model, "config.json").read_text(encoding="utf-8"))
    return config.get("text_config", config)["num_hidden_layers"]


def measure(arguments, folder, tau):
    """One evaluation: interface bytes of all hosts, our counters, and seconds."""
    point, report = os.path.join(folder, "point.json"), os.path.join(folder, "report.json")
    pathlib.Path(point).write_text(json.dumps(operating_point(tau, num_moe_layers(arguments.model))), encoding="utf-8")
    command = ["mpirun", "-n", str(arguments.ranks), os.path.abspath(arguments.binary), "eval",
               "--model", os.path.abspath(arguments.model), "--data", os.path.join(folder, "data"),
               "--json", report, "--operating_point", point]
    slots = str(-(-arguments.ranks // arguments.hosts))
    rate = ["-r", arguments.rate] if arguments.rate else []
    start = time.monotonic()
    result = subprocess.run([NETCLUSTER, "run", "-n", str(arguments.hosts), "-s", slots, *rate, "--", *command],
                            env={**os.environ, "NETCLUSTER_STATS": "1"}, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if result.returncode != 0:
        sys.exit(f"eval ended with status {result.returncode}:\n{result.stderr}")
    hosts = json.loads(next(line for line in reversed(result.stderr.splitlines()) if line.startswith("{")))
    skip = json.loads(pathlib.Path(report).read_text(encoding="utf-8"))["skip"]
    return {"interfaces": sum(host["tx_bytes"] for host in hosts.values()),
            "payload": skip["payload_bytes"]["network"]["sent"],
            "wire": skip["wire_bytes"]["network"],
            "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", help="text file (default: the model's calibration/text.txt)")
    parser.add_argument("--characters", type=int, default=200_000, help="of the text (default %(default)s)")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rate", help="of each host's interface, as for tc: 100mbit (default: unlimited)")
    arguments = parser.parse_args()
    source = pathlib.Path(arguments.text or os.path.join(arguments.model, "calibration/text.txt"))
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, "data"))
        text = source.read_text(encoding="utf-8")[: arguments.characters]
        pathlib.Path(folder, "data/text.txt").write_text(text, encoding="utf-8")
        runs = {"all pairs": measure(arguments, folder, 0.0), "tau 2": measure(arguments, folder, 2.0)}
    for name, run in runs.items():
        print(f"{name:10} interfaces {run['interfaces']:>12} · wire {run['wire']:>12} · payload {run['payload']:>12} bytes"
              f" · {run['seconds']:.1f} s")
    saved = {key: runs["all pairs"][key] - runs["tau 2"][key] for key in ("interfaces", "wire", "payload")}
    differences = {key: 100.0 * (saved["interfaces"] / saved[key] - 1.0) for key in ("wire", "payload")}
    print(f"difference interfaces {saved['interfaces']:>12} · wire {saved['wire']:>12} ({differences['wire']:+.2f} %)"
          f" · payload {saved['payload']:>12} ({differences['payload']:+.2f} %)")
    sys.exit(0 if abs(differences["wire"]) <= MAX_DIFFERENCE_PERCENT else 1)


if __name__ == "__main__":
    main()
