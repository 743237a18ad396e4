"""`skipper frontier --precision`: a short sweep on the demo model, its file and page, going on after a stop, and refusals."""

import os
import subprocess
import xml.etree.ElementTree

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, run_checks

MEMORIES = "204M,208M"


class Case:
    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.out = os.path.join(folder, "precision.json")
        self.page = os.path.join(folder, "precision.html")

    def flags(self, *flags):
        return ["frontier", "--precision", "true", "--model", self.arguments.model, "--out", self.out, "--threads", "2",
                "--data", os.path.join(self.arguments.model, "calibration"), "--limit", "15", "--text_windows", "5", *flags]

    def command(self, *flags):
        return skipper_process.command_line(self.arguments.binary, self.flags(*flags), 0)

    def run(self, *flags, ranks=0):
        return skipper_process.run(self.arguments.binary, self.flags(*flags), ranks=ranks)


def check_points(points):
    failures = []
    plans = [point for point in points if point["source"] == "plan"]
    uniform = {point["name"]: point for point in points if point["source"] == "uniform"}
    if len(plans) != 2 or "bf16" not in uniform or len(uniform) < 5:
        return [f"{len(plans)} plans beside {sorted(uniform)}"]
    if not plans[0]["measured"]["kl"] > plans[1]["measured"]["kl"] > uniform["bf16"]["measured"]["kl"] == 0:
        failures.append(f"KL does not fall with memory: {[plan['measured']['kl'] for plan in plans]}")
    if not plans[0]["expert_bytes"] < plans[1]["expert_bytes"] < uniform["bf16"]["expert_bytes"]:
        failures.append("bytes do not rise with memory")
    if uniform["bf16"]["dominated"]:
        failures.append("unrounded experts are dominated, though nothing else loses nothing")
    for point in points:
        measured = point["measured"]
        if not measured["tokens_per_second"] > 0 or not 0 <= measured["right"] <= measured["questions"] > 0:
            failures.append(f"{point['name']}: {measured}")
        if measured["perplexity"] is None or not 1 < measured["perplexity"] < 1e6:
            failures.append(f"{point['name']}: perplexity {measured['perplexity']}")
    return failures


def check_page(page):
    root = xml.etree.ElementTree.parse(page).getroot()
    charts = [element for element in root.iter() if element.get("class") == "chart"]
    rows = [element for element in root.iter() if element.tag.endswith("tr")]
    return [] if len(charts) == 2 and len(rows) > 7 else [f"{len(charts)} charts and {len(rows)} rows"]


def num_lines(path):
    if not os.path.exists(path):
        return 0
    with open(path, encoding="utf-8") as file:
        return len(file.read().splitlines())


def check_going_on(case, points):
    """Killed after its first points, the same command ends with the same losses."""
    environment = {**os.environ, **skipper_process.MPI_ENVIRONMENT}
    with subprocess.Popen(case.command("--memory", MEMORIES), env=environment, stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:
        has_some = skipper_process.wait_until(lambda: num_lines(case.out + ".partial") > 2, timeout=300)
        process.kill()
    if not has_some:
        return ["no measurement was kept"]
    result = case.run("--memory", MEMORIES)
    if result.returncode != 0 or "going on with" not in result.stderr:
        return [f"after a kill: status {result.returncode}: {result.stderr}"]
    failures = [] if not os.path.exists(case.out + ".partial") else ["measurements remain after the end"]
    losses = [[point["measured"]["kl"] for point in one] for one in (points, read_json(case.out)["points"])]
    return failures if losses[0] == losses[1] else failures + [f"KL {losses[0]} at once, {losses[1]} after a kill"]


def check_refusals(case):
    failures = check_refusal("page", case.run("--html", "/nonexistent/page.html"), EXIT_ERROR, "/nonexistent/page.html")
    failures += check_refusal("ranks", case.run(ranks=2), EXIT_ERROR, "on one rank")
    failures += check_refusal("short", case.run("--memory", "100M"), EXIT_ERROR, "short by")
    failures += check_refusal("levels", case.run("--grid", "3"), EXIT_USAGE, "--grid is of levels of skipping")
    plans = ["frontier", "--model", case.arguments.model, "--data", "x", "--out", "y", "--calibration", "z", "--memory", "1G"]
    return failures + check_refusal("plans", skipper_process.run(case.arguments.binary, plans), EXIT_USAGE, "needs --precision")


def check(arguments, folder):
    case = Case(arguments, folder)
    result = case.run("--memory", MEMORIES, "--html", case.page)
    if result.returncode != 0:
        return [f"status {result.returncode}: {result.stderr}"]
    print(result.stdout)
    points = read_json(case.out)["points"]
    failures = check_points(points) + check_page(case.page)
    return failures + check_going_on(case, points) + check_refusals(case)


if __name__ == "__main__":
    run_checks(check)
