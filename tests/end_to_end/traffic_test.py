"""Skipper's byte counters against a witness inside MPI, without skipping, with it, with everything skipped, with
8-bit rows, and with rows withheld.

The witness is preloaded and counts what the data communicator hands to MPI_Isend. Our wire bytes must be equal to it.
With --hosts the ranks run on that many emulated hosts (tests/testbed): a visible skip where that is impossible.
"""

import argparse
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import skipper_process

NETCLUSTER = pathlib.Path(__file__).resolve().parent.parent / "testbed/netcluster"
SKIPPED = 77


def operating_point(tau_text, tau_vision, num_layers=6):
    alpha = [1.0 / num_layers] * num_layers
    return {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": tau_text, "vision": tau_vision}}


def small_data(model, folder):
    """Some calibration text, chat and picture questions."""
    os.makedirs(os.path.join(folder, "images"))
    with open(os.path.join(model, "calibration/text.txt"), encoding="utf-8") as file:
        text = file.read(12000)
    with open(os.path.join(folder, "text.txt"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(model, "calibration/vqa.jsonl"), encoding="utf-8") as file:
        lines = file.readlines()[:12]
    with open(os.path.join(folder, "vqa.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(lines)
    for line in lines:
        image = json.loads(line)["image"]
        with open(os.path.join(model, "calibration", image), "rb") as source:
            with open(os.path.join(folder, image), "wb") as copy:
                copy.write(source.read())


def run_watched(arguments, flags, witness):
    """skipper with the witness in every rank."""
    watch = {"LD_PRELOAD": arguments.witness, "PMPI_BYTES_OUT": witness}
    exports = [part for name, value in watch.items() for part in ("-x", f"{name}={value}")]
    command = ["mpirun", "-n", str(arguments.ranks), *exports, arguments.binary, *flags]
    environment = {**os.environ, **skipper_process.MPI_ENVIRONMENT}
    if arguments.hosts:
        slots = str(arguments.ranks // arguments.hosts)
        command = [str(NETCLUSTER), "run", "-n", str(arguments.hosts), "-s", slots, "--", *command]
        environment = dict(os.environ)  # netcluster sets up mpirun by itself
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def hosts_can_be_emulated():
    try:
        probe = subprocess.run([str(NETCLUSTER), "run", "-n", "2", "--", "true"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


def write_json(folder, name, value):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)
    return path


def measure(arguments, folder, point, dispatch):
    """(skip section of the report, bytes the witness saw on the data communicator)."""
    flags = ["eval", "--model", arguments.model, "--data", os.path.join(folder, "data"), "--json", os.path.join(folder, "r.json")]
    flags += ["--config", write_json(folder, "config.json", {"dispatch": dispatch})]
    if point is not None:
        flags += ["--operating_point", write_json(folder, "point.json", point)]
    witness = os.path.join(folder, "witness")
    result = run_watched(arguments, flags, witness)
    if result.returncode != 0:
        sys.exit(f"eval ended with status {result.returncode}:\n{result.stderr}")
    seen = 0
    for path in glob.glob(witness + ".*"):
        with open(path, encoding="utf-8") as file:
            calls = json.load(file)["communicators"].get("skipper-data", {})
        seen += sum(call["bytes"] for call in calls.values())
        os.remove(path)
    with open(os.path.join(folder, "r.json"), encoding="utf-8") as file:
        report = json.load(file)
    if ("meaningless" in report) != ("payload" in dispatch):
        sys.exit(f"with {dispatch} the report says: {report.get('meaningless')}")
    return report["skip"], seen


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "model", "witness"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--hosts", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.hosts and not hosts_can_be_emulated():
        print("skipped: hosts cannot be emulated here (root, network namespaces and iproute2 are needed)")
        sys.exit(SKIPPED)
    failures = []
    skips = {}
    with tempfile.TemporaryDirectory() as folder:
        small_data(arguments.model, os.path.join(folder, "data"))
        int8, fp8 = {"payload_dtype": "int8"}, {"payload_dtype": "fp8"}
        cases = {
            "none": (None, {}),
            "tau 0": (operating_point(0.0, 0.0), {}),
            "some": (operating_point(0.03, 0.06), {}),
            "tau 2": (operating_point(2.0, 2.0), {}),
            "int8": (None, int8),
            "fp8": (None, fp8),
            "int8, some": (operating_point(0.03, 0.06), int8),
            "fp8, some": (operating_point(0.03, 0.06), fp8),
            "payload off": (None, {"payload": "off"}),
        }
        for name, (point, dispatch) in cases.items():
            skip, seen = measure(arguments, folder, point, dispatch)
            skips[name] = skip
            counted = skip["wire_bytes"]["node"] + skip["wire_bytes"]["network"]
            print(f"{name}: skip ratio {skip['skip_ratio']:.3f}, wire {counted}, witness {seen}, "
                  f"payload {skip['payload_bytes']}")
            if (skip["wire_bytes"]["network"] > 0) != (arguments.hosts > 1):
                failures.append(f"{name}: {skip['wire_bytes']['network']} bytes over the network")
            if counted != seen or seen == 0:
                failures.append(f"{name}: counted {counted} wire bytes, MPI saw {seen}")
    if skips["none"]["payload_bytes"] != skips["tau 0"]["payload_bytes"]:
        failures.append("tau = 0 sent other payload than no skipping")
    payload = {name: sum(skip["payload_bytes"][hop]["sent"] for hop in ("node", "network")) for name, skip in skips.items()}
    if not payload["tau 2"] < payload["some"] < payload["none"]:
        failures.append(f"payload does not fall with skipping: {payload}")
    for name, baseline in {"int8": "none", "fp8": "none", "int8, some": "some", "fp8, some": "some"}.items():
        # 512 bytes to the experts and 512 back become 256 + 2 · 4 and 512; rounding changes some routes of later layers.
        if abs(payload[name] / payload[baseline] - (264 + 512) / 1024) > 0.01:
            failures.append(f"{name}: {payload[name]} bytes of payload, {baseline} in bf16: {payload[baseline]}")
    if payload["payload off"] != 0:
        failures.append(f"payload off: {payload['payload off']} bytes of payload")
    if any(skips["tau 2"]["pairs"][c]["run"] for c in ("text", "vision")):
        failures.append("tau = 2 ran pairs of text or vision tokens")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
