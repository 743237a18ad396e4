#!/usr/bin/env python3
"""Peak memory of every rank of a server that plans for a budget, against that budget.

    bench/memory_budget.py --binary skipper --model bench-model --budgets 1.4G 1.1G,0.9G --json memory.json

Each of --budgets is one server: `skipper serve --memory BUDGET` on as many ranks as it has sizes, then the same by a plan.json of
`skipper plan`. Requests fill the KV cache of every rank; then the ranks' peaks are read: VmHWM of /proc, which counts mapped
pages of the checkpoint as well. Exit status 1 where one is over its budget by more than 2 %. With --cgroup DIR (a writable
cgroup v1 memory hierarchy, as root) every rank runs in a group whose limit is its budget and 2 %, so that it is killed
rather than counted wrongly. Standard library only.
"""

import json
import os
import sys
import tempfile
import threading

from command_line import OneLineParser

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "end_to_end"))
import skipper_process  # noqa: E402

LEEWAY = 1.02
CONTEXT = 2048  # tokens, which the KV cache of each rank holds once
BLOCK_TOKENS = 16
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}
KINDS = ("VmHWM", "RssAnon", "RssFile", "RssShmem")


def num_bytes(size):
    return int(float(size[:-1]) * UNITS[size[-1]]) if size[-1] in UNITS else int(size)


def memory_of(pid):
    """Bytes by kind; the peak is VmHWM, the others are of now."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        values = dict(line.split(":", 1) for line in status if ":" in line)
    return {kind: int(values[kind].split()[0]) * 1024 for kind in KINDS}


def rank_of(pid):
    with open(f"/proc/{pid}/environ", "rb") as environment:
        values = dict(entry.split(b"=", 1) for entry in environment.read().split(b"\0") if b"=" in entry)
    return int(values.get(b"OMPI_COMM_WORLD_RANK", b"0"))


def fill(server, model, num_requests):
    """Prompts of nearly the whole context, all at once: every block of the cache is used."""
    failures = []

    def ask(index):
        words = [f"{chr(97 + (index * 7 + i) % 26)}{chr(97 + (i * 3 + index) % 26)}" for i in range(CONTEXT * 47 // 100)]
        body = {"model": model, "messages": [{"role": "user", "content": " ".join(words)}], "max_tokens": 16, "ignore_eos": True}
        status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body, timeout=1200)
        if status != 200:
            failures.append(f"status {status}: {answer}")

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(num_requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])


class Group:
    """A memory cgroup for each rank, with its limit; none without a parent directory."""

    def __init__(self, parent, budgets):
        self.folders = []
        for rank, budget in enumerate(budgets if parent else []):
            folder = os.path.join(parent, f"skipper_budget_{os.getpid()}_{rank}")
            os.mkdir(folder)
            self.folders.append(folder)
            with open(os.path.join(folder, "memory.limit_in_bytes"), "w", encoding="ascii") as limit:
                limit.write(str(int(budget * LEEWAY)))

    def launcher(self, binary, folder):
        """What is started in place of the binary: enters the group of its rank first."""
        if not self.folders:
            return binary
        path = os.path.join(folder, "skipper")
        prefix = self.folders[0].rsplit("_", 1)[0]
        with open(path, "w", encoding="utf-8") as script:
            script.write(f"#!/bin/sh\necho $$ > {prefix}_${{OMPI_COMM_WORLD_RANK:-0}}/tasks && exec {binary} \"$@\"\n")
        os.chmod(path, 0o755)
        return path

    def peaks(self):
        """The most each group was charged, cached pages of files included."""
        peaks = []
        for folder in self.folders:
            with open(os.path.join(folder, "memory.max_usage_in_bytes"), encoding="ascii") as peak:
                peaks.append(int(peak.read()))
        return peaks

    def remove(self):
        for folder in self.folders:
            skipper_process.wait_until(lambda folder=folder: not open(os.path.join(folder, "tasks"), encoding="ascii").read())
            os.rmdir(folder)


def measure(arguments, budgets, flags, folder):
    """One server: [{rank, budget, kinds, ...}]."""
    group = Group(arguments.cgroup, budgets)
    ranks = len(budgets) if len(budgets) > 1 else 0
    try:
        binary = group.launcher(arguments.binary, folder)
        log = os.path.join(folder, "serve.log")
        common = ["--model", arguments.model, "--served_model_name", "model", "--device", "cpu"]
        with skipper_process.Server(binary, [*common, *flags], ranks=ranks, log_path=log) as server:
            fill(server, "model", 2 * len(budgets))
            measured = {rank_of(pid): memory_of(pid) for pid in server.rank_pids()}
        peaks = group.peaks()
    finally:
        group.remove()
    return [{"rank": rank, "budget": budget, **measured[rank], "cgroup_peak": peaks[rank] if peaks else None}
            for rank, budget in enumerate(budgets)]


def plan_file(arguments, sizes, config, folder):
    path = os.path.join(folder, "plan.json")
    flags = ["--model", arguments.model, "--device", "cpu", "--config", config, "--out", path]
    result = skipper_process.run(arguments.binary, ["plan", "--memory", sizes, "--ranks", str(sizes.count(",") + 1), *flags])
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())
    return path


def write_config(folder):
    """Settings with a KV cache of one context."""
    path = os.path.join(folder, "config.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"engine": {"kv_blocks_per_rank": CONTEXT // BLOCK_TOKENS, "kv_block_size": BLOCK_TOKENS}}, file)
    return path


def run(arguments):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(folder)
        for sizes in arguments.budgets:
            budgets = [num_bytes(size) for size in sizes.split(",")]
            for how in arguments.by:
                said = ["--memory", sizes] if how == "memory" else ["--plan", plan_file(arguments, sizes, config, folder)]
                for row in measure(arguments, budgets, [*said, "--config", config], folder):
                    rows.append({"by": "--" + how, "budgets": sizes, **row})
                    print_row(rows[-1])
    return rows


def print_row(row):
    megabytes = {key: row[key] / 1e6 for key in (*KINDS, "budget")}
    group = f"; cgroup {row['cgroup_peak'] / 1e6:.1f}" if row["cgroup_peak"] else ""
    print(f"{row['by']:9} {row['budgets']:>12} rank {row['rank']}: peak {megabytes['VmHWM']:8.1f} MB of "
          f"{megabytes['budget']:8.1f}, {100 * row['VmHWM'] / row['budget']:5.1f} %; anonymous "
          f"{megabytes['RssAnon']:.1f}, file {megabytes['RssFile']:.1f}, shared {megabytes['RssShmem']:.1f}{group}", flush=True)


def main():
    parser = OneLineParser(__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--budgets", nargs="+", required=True, metavar="SIZE[,SIZE ...]")
    parser.add_argument("--by", nargs="+", choices=("memory", "plan"), default=["memory", "plan"])
    parser.add_argument("--cgroup", default="")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    rows = run(arguments)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    sys.exit(0 if all(row["VmHWM"] <= LEEWAY * row["budget"] for row in rows) else 1)


if __name__ == "__main__":
    main()
