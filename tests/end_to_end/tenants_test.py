"""Servers of several tenants on one host: each serves within its share, shares are fair by weight, and who has no room is
refused."""

import os
import re
import signal

import skipper_process
from admin_client import check
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, run_checks, write_json
from policy_test import ask
from skipper_process import Server

LEEWAY = 1.02
# The demo model needs 204 MB a rank and has no use for more than 227 MB.
MEMORY = "850M"
TENANTS = [{"name": "small", "weight": 100}, {"name": "large", "weight": 105, "floor": "206M"}, {"name": "pair", "weight": 200}]


class Host:
    """A ledger, and servers that share its memory."""

    def __init__(self, arguments, folder, memory=MEMORY, tenants=None, **settings):
        self.arguments, self.folder = arguments, folder
        self.path = write_json(os.path.join(folder, "tenants.json"),
                               {"version": 1, "memory": memory, "tenants": TENANTS if tenants is None else tenants, **settings})

    def flags(self, name):
        return ["--model", self.arguments.model, "--device", "cpu", "--tenants", self.path, "--tenant", name]

    def serve(self, name, *flags, ranks=0):
        log = os.path.join(self.folder, name + ".log")
        return Server(self.arguments.binary, [*self.flags(name), *flags], ranks=ranks, log_path=log)

    def refusal(self, name, status, expected, *flags):
        command = ["serve", "--port", "0", *flags]
        return check_refusal(name, skipper_process.run(self.arguments.binary, command), status, expected)

    def report(self, status=0):
        result = skipper_process.run(self.arguments.binary, ["tenants", "--tenants", self.path])
        print(result.stdout)
        check(result.returncode == status, f"tenants: status {result.returncode}, expected {status}: {result.stderr}")
        return Report(result.stdout)


class Report:
    """What `skipper tenants` prints, in MB."""

    COLUMNS = ("weight", "floor", "ceiling", "needs", "demand", "share", "held", "used")

    def __init__(self, text):
        self.text, self.rows, self.condition = text, {}, {}
        for line in text.splitlines()[1:]:
            cells = line.replace(" MB", "").split()
            if len(cells) < 10 or line.startswith(("of ", "Jain")):
                continue
            self.rows[cells[0]] = dict(zip(self.COLUMNS, (float(cell) if cell != "-" else None for cell in cells[1:9])))
            self.condition[cells[0]] = " ".join(cells[9:])
        self.jain = [float(value) for value in re.search(r"Jain's index: (\S+) .*, (\S+) of", text).groups()]

    def check_present(self, *names):
        """These are there, and no others; their shares are by weight, held, and not exceeded."""
        found = [name for name, condition in self.condition.items() if condition == "present"]
        check(sorted(found) == sorted(names), f"{found} are present, expected {names}\n{self.text}")
        for name in names:
            row = self.rows[name]
            check(abs(row["share"] / row["weight"] - 850 / 405) < 0.01, f"{name}: the share is not by weight\n{self.text}")
            check(row["held"] == row["share"] and 0 < row["used"] <= LEEWAY * row["share"], f"{name}: {row}")
        check(self.jain[0] > 0.9999, f"shares are unfair: {self.jain}")


def resident_megabytes(server):
    total = 0
    for pid in server.rank_pids():
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            total += int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) * 1024
    return total / 1e6


def check_used(report, name, server):
    """What the report says is what /proc says, at nearly the same time."""
    ours = resident_megabytes(server)
    check(abs(report.rows[name]["used"] - ours) < 0.1 * ours, f"{name}: uses {ours} MB\n{report.text}")


def check_serving(host):
    with host.serve("small") as small, host.serve("large") as large:
        report = host.report()
        report.check_present("small", "large")
        check_used(report, "large", large)
        failures = host.refusal("twice", EXIT_ERROR, "tenant 'small' is already served, by process", *host.flags("small"))
        with host.serve("pair", ranks=2) as pair:
            report = host.report()
            report.check_present("small", "large", "pair")
            check_used(report, "pair", pair)
            for server in (small, large, pair):
                check(ask(server, "What is 83 + 20?"), "no answer")
            small.stop(signal.SIGKILL)
            host.report().check_present("large", "pair")
            with host.serve("small"):
                host.report().check_present("small", "large", "pair")
    check(not any(condition == "present" for condition in host.report().condition.values()), "servers that ended are present")
    return failures


def check_refusals(host):
    flags = host.flags("small")
    failures = host.refusal("unknown", EXIT_ERROR, "its tenants are small, large, pair", *host.flags("other"))
    failures += host.refusal("alone", EXIT_USAGE, "--tenant needs --tenants", *flags[:4], "--tenant", "small")
    failures += host.refusal("nobody", EXIT_USAGE, "--tenants needs --tenant", *flags[:6])
    failures += host.refusal("memory", EXIT_USAGE, "--tenant and --memory exclude each other", *flags, "--memory", "2G")
    failures += host.refusal("no file", EXIT_ERROR, "nowhere.json", *flags[:4], "--tenants", "nowhere.json", "--tenant", "small")
    missing = skipper_process.run(host.arguments.binary, ["tenants"])
    return failures + check_refusal("which", missing, EXIT_USAGE, "--tenants is missing")


def check_shortage(arguments, folder):
    """Two have no room where there is none for both; a ceiling or a promise to a third keeps one out as well."""
    os.mkdir(folder)
    failures = []
    with Host(arguments, folder, "400M", [{"name": "a"}, {"name": "b"}]).serve("a"):
        host = Host(arguments, folder, "400M", [{"name": "a"}, {"name": "b"}])
        failures += host.refusal("short", EXIT_ERROR, "tenant 'b': short by", *host.flags("b"))
    host = Host(arguments, folder, "400M", [{"name": "a", "ceiling": "150M"}])
    failures += host.refusal("ceiling", EXIT_ERROR, "more than its ceiling of 150.0 MB", *host.flags("a"))
    host = Host(arguments, folder, "400M", [{"name": "a"}, {"name": "b", "floor": "300M"}])
    failures += host.refusal("floor", EXIT_ERROR, "the floors of absent ones 300.0 MB", *host.flags("a"))
    host = Host(arguments, folder, "400M", [{"name": "a", "weight": 0}])
    return failures + host.refusal("weight", EXIT_ERROR, "tenants[0]: weight", *host.flags("a"))


def check_all(arguments, folder):
    host = Host(arguments, folder)
    failures = check_refusals(host)
    failures += check_shortage(arguments, os.path.join(folder, "short"))
    return failures + check_serving(host)


if __name__ == "__main__":
    run_checks(check_all)
