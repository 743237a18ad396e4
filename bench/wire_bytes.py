#!/usr/bin/env python3
"""Bytes on the network interfaces of emulated hosts against Skipper's own counters, on bulk prefill.

    bench/wire_bytes.py --binary build/cpu-release/skipper --model models/demo
    bench/wire_bytes.py --binary build/cpu-release/skipper --model models/demo --payload-dtype int8 \\
        --operating-point configs/demo_operating_point.json

Runs `skipper eval` on a text twice over tests/testbed/netcluster (root only), without a limit of its rate: as it is, and with
"dispatch": {"payload": "off"}, where no row is sent and everything else is. What the second run has on the interfaces is
start-up, plans, results, counts and pair lists; the difference is the payload with its headers, and must be our payload counter
within 1 %, or the exit status is 1.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from command_line import OneLineParser, positive

NETCLUSTER = pathlib.Path(__file__).resolve().parent.parent / "tests/testbed/netcluster"
MAX_DIFFERENCE_PERCENT = 1.0


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Sent between hosts in one evaluation: as the interfaces saw it, and as Skipper counted it."""

    interfaces: int
    payload: int
    wire: int

    def __sub__(self, other):
        return Bytes(self.interfaces - other.interfaces, self.payload - other.payload, self.wire - other.wire)

    def __str__(self):
        return f"interfaces {self.interfaces:>13,} · payload {self.payload:>13,} · wire {self.wire:>13,}"


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def eval_command(arguments, folder, payload):
    dispatch = {"payload_dtype": arguments.payload_dtype, "payload": payload}
    command = ["mpirun", "-n", str(arguments.ranks), os.path.abspath(arguments.binary), "eval",
               "--model", os.path.abspath(arguments.model), "--data", str(folder / "data"),
               "--json", str(folder / "report.json"), "--config", write_json(folder / "config.json", {"dispatch": dispatch})]
    if arguments.operating_point:
        command += ["--operating_point", os.path.abspath(arguments.operating_point)]
    if arguments.level is not None:
        command += ["--level", str(arguments.level)]
    return command


def measure(arguments, folder, payload):
    slots = -(-arguments.ranks // arguments.hosts)
    result = subprocess.run([NETCLUSTER, "run", "-n", str(arguments.hosts), "-s", str(slots), "--",
                             *eval_command(arguments, folder, payload)],
                            env={**os.environ, "NETCLUSTER_STATS": "1"}, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"wire_bytes.py: error: eval ended with status {result.returncode}:\n{result.stderr}")
    hosts = json.loads(next(line for line in reversed(result.stderr.splitlines()) if line.startswith('{"node0"')))
    skip = json.loads((folder / "report.json").read_text(encoding="utf-8"))["skip"]
    return Bytes(interfaces=sum(host["tx_bytes"] for host in hosts.values()),
                 payload=skip["payload_bytes"]["network"]["sent"],
                 wire=skip["wire_bytes"]["network"])


def parse_arguments():
    parser = OneLineParser(__doc__)
    parser.add_argument("--binary", required=True, help="skipper")
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--text", help="text file (default: the model's calibration/text.txt)")
    parser.add_argument("--characters", type=positive, default=200_000, help="of the text (default %(default)s)")
    parser.add_argument("--ranks", type=positive, default=4, help="default %(default)s")
    parser.add_argument("--hosts", type=positive, default=2, help="default %(default)s")
    parser.add_argument("--payload-dtype", default="bf16", help="dispatch.payload_dtype (default %(default)s)")
    parser.add_argument("--operating-point", help="operating_point.json or frontier.json (default: nothing is skipped)")
    parser.add_argument("--level", type=int, help="of a frontier.json")
    arguments = parser.parse_args()
    if arguments.hosts < 2 or arguments.ranks < arguments.hosts:
        parser.error(f"--ranks {arguments.ranks} on --hosts {arguments.hosts}: at least 2 hosts, each with a rank, are needed")
    return arguments


def main():
    arguments = parse_arguments()
    source = pathlib.Path(arguments.text or os.path.join(arguments.model, "calibration/text.txt"))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "data").mkdir()
        text = source.read_text(encoding="utf-8")[: arguments.characters]
        (folder / "data/text.txt").write_text(text, encoding="utf-8")
        payload_on, payload_off = (measure(arguments, folder, payload) for payload in ("on", "off"))
    difference = payload_on - payload_off
    if difference.payload == 0:
        sys.exit("wire_bytes.py: error: no payload went from host to host; nothing to compare")
    percent = 100.0 * (difference.interfaces / difference.payload - 1.0)
    print(f"payload on   {payload_on}\npayload off  {payload_off}\ndifference   {difference}")
    print(f"interfaces / payload counter {difference.interfaces / difference.payload:.4f} ({percent:+.2f} %), "
          f"allowed ± {MAX_DIFFERENCE_PERCENT} %: {'met' if abs(percent) <= MAX_DIFFERENCE_PERCENT else 'MISSED'}")
    sys.exit(0 if abs(percent) <= MAX_DIFFERENCE_PERCENT else 1)


if __name__ == "__main__":
    main()
