"""`skipper machine`: rates of one and two ranks in a file that `skipper plan` predicts speed by, warning on other machines."""

import os

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, run_checks, write_json


def measure(arguments, out, flags, ranks=0):
    return skipper_process.run(arguments.binary, ["machine", "--out", out, "--device", "cpu", *flags], ranks=ranks)


def plan(arguments, machine):
    out = os.path.join(os.path.dirname(machine), "plan.json")
    command = ["plan", "--model", arguments.model, "--memory", "220M", "--device", "cpu", "--out", out, "--machine", machine]
    return skipper_process.run(arguments.binary, command), out


def check_rates(machine, ranks):
    failures = []
    for name, rate in (("memory_read", machine["memory_read"]), ("bf16 row", machine["products"]["bf16"]["row"])):
        if not 0 < rate["lowest"] <= rate["median"] <= rate["highest"] or rate["samples"] < 3 * ranks:
            failures.append(f"{ranks} rank(s): {name}: {rate}")
    if (machine["links"]["node"] is None) != (ranks == 1) or machine["links"]["network"] is not None:
        failures.append(f"{ranks} rank(s): links {machine['links']}")
    if machine["ranks_per_host"] != ranks or machine["bus"] is not None:
        failures.append(f"{ranks} rank(s): {machine['ranks_per_host']} ranks, bus {machine['bus']}")
    return failures


def check_predictions(arguments, path, machine):
    """A machine that is ten times slower is predicted to be ten times slower; another machine is warned of."""
    failures = []
    here, out = plan(arguments, path)
    if here.returncode != 0 or "at rates of" not in here.stdout or "another machine" in here.stderr:
        failures.append(f"plan --machine: status {here.returncode}: {here.stdout} {here.stderr}")
    seconds = read_json(out)["predicted"]["seconds_per_token"]
    machine["host"]["cores"] += 1
    for rates in machine["products"].values():
        rates["row"].update({key: rates["row"][key] / 10 for key in ("median", "lowest", "highest")})
    slow, out = plan(arguments, write_json(path + ".slow", machine))
    if "another machine" not in slow.stderr:
        failures.append(f"nothing says that it is another machine: {slow.stderr}")
    slower = read_json(out)["predicted"]["seconds_per_token"]
    if abs(slower / seconds - 10) > 1e-6:
        failures.append(f"ten times slower: {seconds} s and {slower} s")
    return failures


def check_refusals(arguments, folder, path):
    out = os.path.join(folder, "none.json")
    failures = check_refusal("disk", measure(arguments, out, ["--disk", "/nonexistent"]), EXIT_ERROR, "/nonexistent", out)
    failures += check_refusal("format", measure(arguments, out, ["--formats", "int5"]), EXIT_ERROR, "int5", out)
    failures += check_refusal("out", measure(arguments, "/nonexistent/machine.json", []), EXIT_ERROR, "/nonexistent")
    wrong = write_json(path + ".wrong", {"version": 1, "host": {}})
    failures += check_refusal("machine", plan(arguments, wrong)[0], EXIT_ERROR, "host")
    without = skipper_process.run(arguments.binary, ["serve", "--model", arguments.model, "--machine", path])
    return failures + check_refusal("no memory", without, EXIT_USAGE, "--machine needs --memory")


def check(arguments, folder):
    failures = []
    for ranks in (1, 2):
        path = os.path.join(folder, f"machine{ranks}.json")
        result = measure(arguments, path, [], ranks=ranks if ranks > 1 else 0)
        if result.returncode != 0:
            return [f"{ranks} rank(s): status {result.returncode}: {result.stderr}"]
        print(result.stdout)
        failures += check_rates(read_json(path), ranks)
    one = os.path.join(folder, "machine1.json")
    failures += check_refusals(arguments, folder, one)
    return failures + check_predictions(arguments, one, read_json(one))


if __name__ == "__main__":
    run_checks(check)
