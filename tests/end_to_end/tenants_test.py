"""Servers of several tenants on one host: each serves within its share, shares are fair by weight, and who has no room is
refused."""

import fcntl
import glob
import os
import re
import signal
import threading

import skipper_process
from admin_client import check
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, run_checks, write_json
from policy_test import QUESTIONS, Load, answers, ask
from skipper_process import Server

LEEWAY = 1.02
# The demo model needs 204 MB a rank and has no use for more than 227 MB.
MEMORY = "850M"
TENANTS = [{"name": "small", "weight": 100}, {"name": "large", "weight": 105, "floor": "206M"}, {"name": "pair", "weight": 200}]
LEVEL = 850 / 405  # MB per weight, of all three


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

    def check_present(self, *names, level=None):
        """These are there, and no others; they hold their shares, of `level` bytes per weight each, and do not exceed them."""
        found = [name for name, condition in self.condition.items() if condition == "present"]
        check(sorted(found) == sorted(names), f"{found} are present, expected {names}\n{self.text}")
        for name in names:
            row = self.rows[name]
            check(row["held"] == row["share"] and 0 < row["used"] <= LEEWAY * row["share"], f"{name}: {row}")
            if level:
                check(abs(row["share"] / row["weight"] - level) < 0.01, f"{name}: the share is not by weight\n{self.text}")
        check(not level or self.jain[0] > 0.9999, f"shares are unfair: {self.jain}")


def resident_bytes(pid):
    """0 where there is no such process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read() + "VmRSS: 0 kB")[1]) * 1024
    except FileNotFoundError:
        return 0


def check_used(report, name, server):
    """What the report says is what /proc says, at nearly the same time."""
    ours = sum(resident_bytes(pid) for pid in server.rank_pids()) / 1e6
    check(abs(report.rows[name]["used"] - ours) < 0.1 * ours, f"{name}: uses {ours} MB\n{report.text}")


def present_when_settled(host, *names, level=None):
    """As soon as nobody shrinks, grows or waits."""
    check(skipper_process.wait_until(lambda: set(host.report().condition.values()) <= {"present", "absent"}, 60, 0.5), "no end")
    report = host.report()
    report.check_present(*names, level=level)
    return report


def check_weights(host):
    """One of two ranks among them; a killed server's place is free at once."""
    with host.serve("small") as small, host.serve("large") as large:
        failures = host.refusal("twice", EXIT_ERROR, "tenant 'small' is already served, by process", *host.flags("small"))
        with host.serve("pair", ranks=2) as pair:
            report = present_when_settled(host, "small", "large", "pair", level=LEVEL)
            check_used(report, "pair", pair)
            for server in (small, large, pair):
                check(ask(server, "What is 83 + 20?"), "no answer")
            small.stop(signal.SIGKILL)
            check(host.report().condition["small"] == "absent", "a killed server is present")
            with host.serve("small"):
                present_when_settled(host, "small", "large", "pair", level=LEVEL)
    check(set(host.report().condition.values()) == {"absent"}, "servers that ended are present")
    return failures


class Watch:
    """Looks all the time at what tenants hold, and what their processes use."""

    def __init__(self, host):
        self.host, self.held, self.used, self.num_looks, self.ending = host, 0, 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.ending.wait(0.02):
            held, used = self.look()
            self.held, self.used, self.num_looks = max(self.held, held), max(self.used, used), self.num_looks + 1

    def look(self):
        """Bytes; by servers that live, under the directory's lock."""
        held = used = 0
        with open(os.path.join(self.host.path + ".d", "lock"), encoding="utf-8") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH)
            for path in glob.glob(self.host.path + ".d/*.json"):
                state = read_json(path)
                resident = [resident_bytes(pid) for pid in state["pids"]]
                used += sum(resident)
                held += state["held"] if resident[0] else 0
        return held, used

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.ending.set()
        self.thread.join()


def check_live(arguments, folder):
    """Two serve with all that they can use. A third comes, and they give part of it back while they answer; it is killed, and
    they take that again."""
    os.mkdir(folder)
    host = Host(arguments, folder, "640M", [{"name": "a"}, {"name": "b"}, {"name": "c"}])
    with host.serve("a") as a, host.serve("b") as b, Watch(host) as watch:
        full = present_when_settled(host, "a", "b").rows["a"]
        check(full["share"] == full["demand"], f"{full}")
        before = answers(a)
        with Load(a) as load_a, Load(b) as load_b:
            c = host.serve("c")
            present_when_settled(host, "a", "b", "c", level=640 / 300)
            check(ask(c, QUESTIONS[0]), "no answer")
        less = answers(a)
        c.stop(signal.SIGKILL)
        check(skipper_process.wait_until(lambda: host.report().rows["b"]["held"] == full["demand"], 60, 0.5), "no growth")
        report = present_when_settled(host, "a", "b")
        check(report.rows["a"]["held"] == full["held"] and answers(a) == before, "a is not what it was")
        failures = load_a.failures + load_b.failures
        log = a.log()
    print(f"{len(load_a.answers)} and {len(load_b.answers)} answers meanwhile; of 640 MB at most {watch.held / 1e6:.1f} held, "
          f"{watch.used / 1e6:.1f} used in {watch.num_looks} looks")
    check(watch.held <= 640e6 and watch.used <= 640e6 and watch.num_looks > 20, "the memory was exceeded")
    print("\n".join(line for line in log.splitlines() if "tenant=" in line))
    memory = re.search(r"switched to policy=memory:(\d+)", log)[1]
    with Server(arguments.binary, ["--model", arguments.model, "--device", "cpu", "--memory", memory]) as alone:
        check(answers(alone) == less, "the answers are not those of a server with as much memory")
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
    failures += check_weights(host)
    return failures + check_live(arguments, os.path.join(folder, "live"))


if __name__ == "__main__":
    run_checks(check_all)
