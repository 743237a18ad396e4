#!/usr/bin/env python3
"""What each part of reading experts from disk is worth: one stream, all experts on disk, in less memory than the model takes.

    bench/disk_ablation.py --perf build/cpu-release/bench/disk_perf --binary build/cpu-release/skipper --model bench-model \\
        --demo models/demo --disk /var/tmp --cgroup /sys/fs/cgroup/memory --json ablation.json

Rows: experts in memory; on demand; + low bit; + foresight; + cache; and beside the last one the ceilings (an oracle of the next
layer, Belady's eviction, both) and the floor (a predictor that is always wrong, and may or may not turn itself off).

Routes: `skipper serve` answers questions of the demo model's calibration data with --audit_file, and the experts of its generated
tokens, with their skew and their correlations, are laid over the layers and experts of the benched model, whose router they
override (bench/planted_routes.h). So every row runs the same experts in the same order.

Every row is a process of its own, in a memory cgroup of --memory (v1, as root; none without --cgroup), which reads past the page
cache. All rows live at the same time and take turns, a few tokens each, since other programs may run. Before anything is timed,
and in every round, rows of one format must give the same tokens; exit status 1 where they do not. Standard library only.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

from command_line import OneLineParser, positive
from memory_budget import num_bytes, skipper_process

# EdgeMoE (arXiv 2308.14352), seconds a token of its ablation: on demand, + bit widths, + preloading, + expert buffer.
EDGEMOE = {"on demand": 0.789, "+ low bit": 0.392, "+ foresight": 0.305, "+ cache": 0.245}
LOW_BIT = "int4a-g32"
SLACK_TOKENS = 8
FURTHER_ROWS = ("in memory, low bit", "cache, no foresight", "cache, lru, no foresight", "cache, Belady, oracle",
                "cache, always wrong, stays on")
PREFILLED = ("in memory", "in memory, low bit", "on demand", "+ low bit", "+ cache")
SUMS = ("hits", "late", "misses", "foreseen", "used", "wasted", "bytes", "busy", "exposed")
RECORDED_ANSWERS = 8
# Of the memory that a group has, what a cache may plan with: the rest is for pages that the kernel charges to it.
CACHE_SHARE = 0.92


class Row:
    """A process of disk_perf, in a group of its own."""

    def __init__(self, arguments, routes, label, flags, limit):
        self.label, self.on_disk, self.format = label, "--disk" in flags, flags[flags.index("--experts") + 1]
        self.group = Group(arguments.cgroup, limit)
        self.seconds, self.prefill, self.tokens = [], [], []
        command = [arguments.perf, "--model", arguments.model, "--routes", routes, "--threads", str(arguments.threads),
                   "--tokens", str(num_tokens(arguments)), "--prompt", str(arguments.prompt), *flags]
        self.process = subprocess.Popen(self.group.launcher(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **skipper_process.MPI_ENVIRONMENT})
        self.facts = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.label}: ended with status {self.process.wait()}{self.group.verdict()}")
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def decode(self, count):
        run = self.ask(f"decode {count}")
        self.tokens += run["tokens"]
        self.now = run["disk"]
        return run["seconds"] / count

    def decoded(self):
        """What decoding has cost at the disk; the context's prefill is left out."""
        return {key: self.now[key] - self.facts["disk"][key] for key in SUMS}

    def peak(self):
        """Bytes, by the process's own account."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.group.remove()


class Group:
    """A memory cgroup with a limit; none without a parent directory, or without a limit."""

    count = 0

    def __init__(self, parent, limit):
        self.folder = None
        if not parent or limit is None:
            return
        Group.count += 1
        self.folder = os.path.join(parent, f"skipper_disk_{os.getpid()}_{Group.count}")
        os.mkdir(self.folder)
        with open(os.path.join(self.folder, "memory.limit_in_bytes"), "w", encoding="ascii") as file:
            file.write(str(limit))

    def launcher(self, command):
        if not self.folder:
            return command
        return ["/bin/sh", "-c", 'echo $$ > "$0/tasks" && exec "$@"', self.folder, *command]

    def value(self, name):
        with open(os.path.join(self.folder, name), encoding="ascii") as file:
            return file.read()

    def verdict(self):
        return f"; memory limit reached {self.value('memory.failcnt').strip()} times" if self.folder else ""

    def remove(self):
        if self.folder:
            skipper_process.wait_until(lambda: not self.value("tasks"))
            os.rmdir(self.folder)


def num_tokens(arguments):
    return arguments.warm_up + arguments.rounds * arguments.tokens + SLACK_TOKENS


def record_routes(arguments, folder):
    """The path of an audit file with answers of as many tokens as will decode."""
    path = os.path.join(folder, "routes.jsonl")
    with open(os.path.join(arguments.demo, "calibration", "chat.jsonl"), encoding="utf-8") as file:
        lines = file.readlines()
    questions = [json.loads(line)["question"] for line in lines[:: max(1, len(lines) // RECORDED_ANSWERS)]][:RECORDED_ANSWERS]
    model = ["--model", arguments.demo, "--served_model_name", "demo", "--device", "cpu"]
    flags = [*model, "--audit_file", path, "--audit_rate", "1"]
    with skipper_process.Server(arguments.binary, flags, log_path=os.path.join(folder, "serve.log")) as server:
        for index, question in enumerate(questions):
            body = {"model": "demo", "messages": [{"role": "user", "content": question}], "max_tokens": num_tokens(arguments) + 1,
                    "ignore_eos": True, "temperature": 1.0, "seed": index}
            status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
            if status != 200:
                raise RuntimeError(f"recording routes: status {status}: {answer}")
    return path


def start_rows(arguments, routes, rows):
    """Rows in the order of the table, into `rows`."""
    limit = num_bytes(arguments.memory)

    def start(label, precision, *flags, limited=True):
        if arguments.rows == "core" and label in FURTHER_ROWS:
            return None
        rows.append(Row(arguments, routes, label, ["--experts", precision, *flags], limit if limited else None))
        print(f"  {label} ({precision}): ready", file=sys.stderr, flush=True)
        return rows[-1]

    def folder(precision):
        path = os.path.join(arguments.disk, f"skipper_ablation_{precision}")
        os.makedirs(path, exist_ok=True)
        return path

    in_memory = start("in memory", "bf16", limited=False)
    start("in memory, low bit", LOW_BIT, limited=False)
    few = 2 * in_memory.facts["top_k"]  # those of a layer, and those of the next: none is left for the next token
    uncached = ("--cache_experts", str(few), "--eviction", "lru")
    start("on demand", "bf16", "--disk", folder("bf16"), *uncached)
    low = ("--disk", folder(LOW_BIT))
    low_bit = start("+ low bit", LOW_BIT, *low, *uncached)
    start("+ foresight", LOW_BIT, *low, *uncached, "--foresight", "table")
    # What a cache can have: what the others leave of the limit.
    room = CACHE_SHARE * limit - low_bit.peak()
    many = str(min(few + max(0, int(room / low_bit.facts["expert_bytes"])), low_bit.facts["experts"]))
    cached = (*low, "--cache_experts", many)
    start("+ cache", LOW_BIT, *cached, "--foresight", "table")
    start("cache, no foresight", LOW_BIT, *cached)
    start("cache, lru, no foresight", LOW_BIT, *cached, "--eviction", "lru")
    start("cache, Belady, no foresight", LOW_BIT, *cached, "--eviction", "belady")
    start("cache, oracle", LOW_BIT, *cached, "--foresight", "oracle", "--always", "true")
    start("cache, Belady, oracle", LOW_BIT, *cached, "--eviction", "belady", "--foresight", "oracle", "--always", "true")
    start("cache, always wrong", LOW_BIT, *cached, "--foresight", "wrong")
    start("cache, always wrong, stays on", LOW_BIT, *cached, "--foresight", "wrong", "--always", "true")
    return int(many)


def require_equal_tokens(rows):
    for precision in {row.format for row in rows}:
        same = [row for row in rows if row.format == precision]
        for row in same[1:]:
            if row.tokens != same[0].tokens:
                sys.exit(f"disk_ablation.py: error: {row.label} ({precision}) gives other tokens than {same[0].label}: "
                         f"{row.tokens} and {same[0].tokens}; no time means anything")


def measure(arguments, rows):
    """Load averages of the rounds."""
    for row in rows:
        row.decode(arguments.warm_up)
    require_equal_tokens(rows)
    loads = []
    for index in range(arguments.rounds):
        for row in rows:
            row.seconds.append(row.decode(arguments.tokens))
        require_equal_tokens(rows)
        loads.append(os.getloadavg()[0])
        print(f"  round {index + 1} of {arguments.rounds}, load {loads[-1]:.1f}", file=sys.stderr, flush=True)
    measure_prefills(arguments, [row for row in rows if row.label in PREFILLED])
    return loads


def measure_prefills(arguments, rows):
    before = {row: row.now for row in rows}
    for _ in range(arguments.prompt_rounds if arguments.prompt else 0):
        for row in rows:
            run = row.ask("prefill")
            row.prefill.append({"seconds": run["seconds"], "tokens": run["tokens"],
                                **{key: run["disk"][key] - before[row][key] for key in SUMS}})
            before[row] = run["disk"]
    for precision in {row.format for row in rows}:
        if len({str(row.prefill[0]["tokens"]) for row in rows if row.format == precision and row.prefill}) > 1:
            sys.exit(f"disk_ablation.py: error: prefills in {precision} end in different tokens; no time means anything")


def result_of(row):
    result = {"label": row.label, "format": row.format, "seconds_per_token": statistics.median(row.seconds),
              "lowest": min(row.seconds), "highest": max(row.seconds), "runs": row.seconds, "peak_bytes": row.peak(),
              "prefill": row.prefill}
    if row.on_disk:
        disk = row.decoded()
        needs = disk["hits"] + disk["late"] + disk["misses"]
        result.update({**disk, "hit_rate": disk["hits"] / needs, "late_rate": disk["late"] / needs,
                       "bytes_per_second": disk["bytes"] / disk["busy"], "foresight_on": row.now["foresight_on"],
                       "turned_off": row.now["turned_off"], "replayed_hit_rate": row.facts["hit_rate"]})
    return result


def print_table(results, facts):
    print(f"routes as planted: skew {facts['skew']:.2f}, {100 * facts['repeat']:.0f} % as the token before, table recall "
          f"{100 * facts['table_recall']:.0f} %; cache of {facts['cache_experts']} of {facts['experts']} experts "
          f"({facts['cache_experts'] * facts['expert_bytes'] / 1e6:.0f} MB); limit {facts['memory']}; disk "
          f"{facts['disk_rate'] / 1e9:.2f} GB/s; load {min(facts['loads']):.1f} to {max(facts['loads']):.1f}")
    print(f"{'':30} {'format':>10} {'s/token':>9} {'lowest':>8} {'highest':>8} {'tok/s':>7} {'hits':>7} {'late':>6} "
          f"{'read/tok':>9} {'waited':>8} {'disk':>9} {'EdgeMoE':>8}")
    for one in results:
        line = (f"{one['label']:30} {one['format']:>10} {one['seconds_per_token']:9.3f} {one['lowest']:8.3f} "
                f"{one['highest']:8.3f} {1 / one['seconds_per_token']:7.1f} ")
        if "hit_rate" in one:
            megabytes = one["bytes"] / facts["decoded"] / 1e6
            line += (f"{100 * one['hit_rate']:5.1f} % {100 * one['late_rate']:4.1f} % {megabytes:6.1f} MB "
                     f"{one['exposed'] / facts['decoded']:6.3f} s {one['bytes_per_second'] / 1e9:4.2f} GB/s ")
        else:
            line += " " * 44
        print(line + (f"{EDGEMOE[one['label']]:7.3f}" if one["label"] in EDGEMOE else ""))
    rates = facts["hit_rate"]
    names = ("lru", "lfu", "edge", "belady")
    print("replayed hits of that cache: " + ", ".join(f"{name} {100 * rates[name]:.1f} %" for name in names))


def print_prefills(results, prompt):
    for one in results:
        if not one["prefill"]:
            continue
        best = min(one["prefill"], key=lambda run: run["seconds"])
        print(f"prefill of {prompt}: {one['label']} ({one['format']}) {best['seconds']:.2f} s, "
              f"{prompt / best['seconds']:.0f} tok/s; disk busy {best['busy']:.2f} s, waited {best['exposed']:.2f} s, "
              f"{best['used']} experts read a layer ahead, {best['misses']} when needed")


def run(arguments, folder):
    rows = []
    try:
        print("recording routes", file=sys.stderr, flush=True)
        routes = record_routes(arguments, folder)
        cache_experts = start_rows(arguments, routes, rows)
        demand = next(row for row in rows if row.on_disk)
        rates = [demand.ask("disk_rate")["bytes_per_second"]]
        loads = measure(arguments, rows)
        rates.append(demand.ask("disk_rate")["bytes_per_second"])
        cached = next(row for row in rows if row.label == "+ cache")
        facts = {**cached.facts, "cache_experts": cache_experts, "memory": arguments.memory, "disk_rate": statistics.mean(rates),
                 "disk_rates": rates, "loads": loads, "decoded": arguments.warm_up + arguments.rounds * arguments.tokens}
        return facts, [result_of(row) for row in rows]
    finally:
        for row in rows:
            row.end()


def main():
    parser = OneLineParser(__doc__)
    for name in ("perf", "binary", "model", "demo", "disk"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--cgroup", default="", help="writable folder of cgroup v1's memory controller")
    parser.add_argument("--memory", default="900M", help="limit of every row but those in memory (default 900M)")
    parser.add_argument("--rows", choices=("core", "all"), default="all",
                        help="core: those of EdgeMoE's ablation, and one of each ceiling and floor (default all)")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--warm_up", type=positive, default=40, help="tokens before the first round (default 40)")
    parser.add_argument("--tokens", type=positive, default=8, help="of a row in a round (default 8)")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prefill; 0: none (default 512)")
    parser.add_argument("--prompt_rounds", type=positive, default=2)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            facts, results = run(arguments, folder)
        except (OSError, RuntimeError) as error:
            sys.exit(f"disk_ablation.py: error: {error}")
    print_table(results, facts)
    print_prefills(results, arguments.prompt)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"facts": facts, "edgemoe": EDGEMOE, "rows": results}, file, indent=1)


if __name__ == "__main__":
    main()
