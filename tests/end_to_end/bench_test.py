"""model_perf, skip_perf and traffic_perf on a checkpoint that bench/make_random_checkpoint.py makes: figures that can be, and
refusals in one line."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import skipper_process

GENERATOR = pathlib.Path(__file__).resolve().parent.parent.parent / "bench/make_random_checkpoint.py"
SHAPE = {"hidden": 32, "layers": 2, "experts": 7, "top-k": 3, "expert-width": 24, "heads": 4, "kv-heads": 2, "head-dim": 16,
         "vocab": 307, "max-positions": 64}


def make_checkpoint(folder, *flags):
    shape = [part for name, size in SHAPE.items() for part in ("--" + name, str(size))]
    command = [sys.executable, str(GENERATOR), "--out", folder, *shape, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def weights_of(folder):
    return (pathlib.Path(folder) / "model-00001-of-00001.safetensors").read_bytes()


def check_generator(folder, failures):
    """Equal flags give equal bytes, another seed others, and a folder with something in it is refused."""
    paths = [os.path.join(folder, name) for name in ("model", "same", "other")]
    for path, flags in zip(paths, ([], [], ["--seed", "2"])):
        result = make_checkpoint(path, *flags)
        if result.returncode != 0:
            sys.exit(f"make_random_checkpoint ended with status {result.returncode}:\n{result.stderr}")
    first, same, other = (weights_of(path) for path in paths)
    if first != same or first == other:
        failures.append("the seed does not decide the weights")
    again = make_checkpoint(paths[0])
    if again.returncode != 2 or "is not empty" not in again.stderr or again.stderr.count("\n") != 1:
        failures.append(f"a directory that is not empty: status {again.returncode}, {again.stderr!r}")
    return paths[0]


def measure(arguments, model, ranks, report):
    flags = ["--model", model, "--threads", "1", "--prefill", "1,13", "--decode", "1,5", "--steps", "3", "--repeat", "2",
             "--json", report]
    result = skipper_process.run(arguments.perf, flags, ranks=ranks)
    if result.returncode != 0:
        sys.exit(f"model_perf with {ranks} ranks ended with status {result.returncode}:\n{result.stderr}")
    with open(report, encoding="utf-8") as file:
        return json.load(file)


def check_report(report, ranks, failures):
    label = f"{ranks} ranks"
    if report["ranks"] != max(ranks, 1) or set(report["prefill"]) != {"1", "13"} or set(report["decode"]) != {"1", "5"}:
        failures.append(f"{label}: other cases than asked: {report}")
        return
    for phase in ("prefill", "decode"):
        for size, best in report[phase].items():
            rates = report["details"][phase][size]["tokens_per_second"]
            if len(rates["samples"]) != 2 or not 0 < rates["min"] <= rates["median"] <= rates["max"] == best:
                failures.append(f"{label}: {phase} {size}: rates {rates}, best {best}")
    alone = report["details"]["decode"]["1"]["distinct_experts_per_layer"]
    if alone != {"mean": SHAPE["top-k"], "min": SHAPE["top-k"], "max": SHAPE["top-k"]}:
        failures.append(f"{label}: one token runs top-k experts, not {alone}")
    together = report["details"]["decode"]["5"]["distinct_experts_per_layer"]["mean"]
    if not SHAPE["top-k"] < together <= SHAPE["experts"]:
        failures.append(f"{label}: five different tokens run {together} experts")


def check_refusals(arguments, model, failures):
    cases = [([], 2, "--model is missing"), (["--model", model, "--decode", "0"], 2, "--decode"),
             (["--model", model, "--thread", "2"], 2, "did you mean --threads?"),
             (["--model", model, "--prefill", "65"], 1, "longer than the model's 64")]
    for flags, status, text in cases:
        result = skipper_process.run(arguments.perf, flags)
        if result.returncode != status or text not in result.stderr or result.stderr.count("\n") != 1:
            failures.append(f"{flags}: status {result.returncode}, {result.stderr!r}")


def check_skipping(arguments, model, folder, failures):
    report = os.path.join(folder, "skipping.json")
    flags = ["--model", model, "--threads", "1", "--prompt", "48", "--skip", "50,90", "--repeat", "2", "--json", report]
    result = skipper_process.run(arguments.skip_perf, flags)
    if result.returncode != 0:
        failures.append(f"skip_perf ended with status {result.returncode}: {result.stderr}")
        return
    with open(report, encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    # Nothing, thresholds that skip nothing, then the shares; routes change a little once pairs are gone.
    wanted = [0.0, 0.0, 0.5, 0.9]
    found = [case["skipped"] for case in cases]
    if len(found) != 4 or found[:2] != [0.0, 0.0] or any(abs(a - b) > 0.15 for a, b in zip(found, wanted)):
        failures.append(f"skip_perf skipped {found}, wanted {wanted}")
    if any(not 0 < case["expert_seconds"] < case["seconds"] for case in cases):
        failures.append(f"skip_perf: times that cannot be: {cases}")
    refused = skipper_process.run(arguments.skip_perf, ["--model", model, "--prompt", "65"])
    if refused.returncode != 1 or "longer than the model's 64" not in refused.stderr:
        failures.append(f"a prompt too long: status {refused.returncode}, {refused.stderr!r}")


def check_traffic(arguments, model, folder, failures):
    """On two ranks of one host nothing crosses the network; the bits of a case are the same in every process."""
    reports = []
    for name in ("traffic.json", "again.json"):
        report = os.path.join(folder, name)
        flags = ["--model", model, "--threads", "1", "--prompt", "48", "--pairs", "50", "--destinations", "30,60",
                 "--repeat", "2", "--json", report]
        result = skipper_process.run(arguments.traffic_perf, flags, ranks=2)
        if result.returncode != 0:
            failures.append(f"traffic_perf ended with status {result.returncode}: {result.stderr}")
            return
        with open(report, encoding="utf-8") as file:
            reports.append(json.load(file))
    cases = reports[0]["cases"]
    wanted = ["none", "pairs 50 %", "destinations 30 %", "destinations 60 %"]
    if [case["name"] for case in cases] != wanted or (reports[0]["ranks"], reports[0]["hosts"]) != (2, 1):
        failures.append(f"traffic_perf: other cases than asked: {reports[0]}")
        return
    none, pairs, fewer, fewest = (case["skipped"] for case in cases)
    if none != 0.0 or abs(pairs - 0.5) > 0.15 or not 0.0 < fewer < fewest < 0.6:
        failures.append(f"traffic_perf skipped {none}, {pairs}, {fewer}, {fewest} of the pairs")
    if any(case["network_bytes"] != 0 or len(case["seconds"]) != 2 or min(case["seconds"]) <= 0 for case in cases):
        failures.append(f"traffic_perf: figures that cannot be: {cases}")
    hashes = [case["logits"] for case in cases]
    if len(set(hashes)) != 4 or hashes != [case["logits"] for case in reports[1]["cases"]]:
        failures.append(f"traffic_perf: logits {hashes}, in another process {[case['logits'] for case in reports[1]['cases']]}")
    refused = skipper_process.run(arguments.traffic_perf, ["--model", model, "--payload_dtype", "int4"], ranks=2)
    if refused.returncode != 2 or "use one of f32, bf16, int8, fp8" not in refused.stderr:
        failures.append(f"an unknown format of rows: status {refused.returncode}, {refused.stderr!r}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "model", "perf", "skip_perf", "traffic_perf"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        model = check_generator(folder, failures)
        reports = {ranks: measure(arguments, model, ranks, os.path.join(folder, "report.json")) for ranks in (0, 2)}
        for ranks, report in reports.items():
            check_report(report, ranks, failures)
        # What the streams' tokens ask of the experts does not depend on who owns the streams.
        counts = [report["details"]["decode"]["5"]["distinct_experts_per_layer"] for report in reports.values()]
        if counts[0] != counts[1]:
            failures.append(f"one rank and two ranks ran other experts: {counts}")
        check_refusals(arguments, model, failures)
        check_skipping(arguments, model, folder, failures)
        check_traffic(arguments, model, folder, failures)
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
