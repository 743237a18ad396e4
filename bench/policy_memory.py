#!/usr/bin/env python3
"""What ranks hold while a server changes to plans for other budgets, and how long that takes.

    bench/policy_memory.py --binary skipper --model models/demo --memory 400M,400M --then 210M,207M 400M --json switches.json

Starts `skipper serve --memory` on as many ranks as --memory has sizes, posts each of --then to /admin/policy, and shows for
every rank what its process held before, with both sets of experts and after, and the seconds of staging and of freeing. With
--load N clients ask without a pause meanwhile. --extra is the memory that each rank may take beyond the largest budget. Exit
status 1 where a switch was given up, or after one to less memory a rank holds no less than before. Standard library only.
"""

import json
import os
import sys
import tempfile
import threading

from command_line import OneLineParser

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "end_to_end"))
import skipper_process  # noqa: E402
from admin_client import Admin, write_key  # noqa: E402

WARM_ANSWERS = 8  # of each client
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}


def num_bytes(sizes):
    """Of all ranks together."""
    return sum(float(size[:-1]) * UNITS[size[-1]] if size[-1] in UNITS else float(size) for size in sizes.split(","))


class Load:
    """Clients until the end of the block."""

    def __init__(self, server, num_clients):
        self.ending = threading.Event()
        self.num_answers = 0
        self.threads = [threading.Thread(target=self.work, args=(server,)) for _ in range(num_clients)]

    def work(self, server):
        body = {"model": "model", "messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": 64,
                "ignore_eos": True}
        while not self.ending.is_set():
            status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body, timeout=600)
            if status != 200:
                raise RuntimeError(f"status {status}: {answer}")
            self.num_answers += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        # The first answers touch buffers and blocks of the KV cache that nothing had touched.
        warm = skipper_process.wait_until(lambda: self.num_answers >= WARM_ANSWERS * len(self.threads), timeout=600)
        if not warm:
            raise RuntimeError("no answers")
        return self

    def __exit__(self, *unused):
        self.ending.set()
        for thread in self.threads:
            thread.join()


def switch(server, arguments, memory):
    admin = Admin(server)
    url = admin.url.replace("operating_point", "policy")
    body = {"memory": memory, "deadline_seconds": arguments.deadline}
    if arguments.extra:
        body["extra_memory"] = arguments.extra
    status, answer = admin.ask("POST", body, url=url)
    if status != 200:
        raise RuntimeError(f"{memory}: status {status}: {answer['error']['message']}")
    return answer


def print_row(row):
    last = row["last"]
    print(f"{row['policy']}: loss {row['predicted_loss']:.5g}, moved {last['moved_bytes'] / 1e6:.1f} MB, staged in "
          f"{last['staging_seconds']:.2f} s, freed in {last['freed_seconds']:.3f} s")
    for rank, memory in enumerate(last["resident_bytes"]):
        before, both, after = (memory[key] / 1e6 for key in ("before", "with_both", "after"))
        print(f"  rank {rank}: {before:.1f} MB before, {both:.1f} with both, {after:.1f} after", flush=True)


def is_smaller(row):
    return all(memory["after"] < memory["before"] for memory in row["last"]["resident_bytes"])


def main():
    parser = OneLineParser(__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--memory", required=True, metavar="SIZE[,SIZE ...]", help="one for each rank")
    parser.add_argument("--then", nargs="+", required=True, metavar="SIZE[,SIZE ...]", help="one for each rank")
    parser.add_argument("--extra", default="", metavar="SIZE")
    parser.add_argument("--deadline", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--load", type=int, default=0, metavar="CLIENTS")
    parser.add_argument("--config", default="")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--model", arguments.model, "--served_model_name", "model", "--device", "cpu", "--memory", arguments.memory,
                 "--admin_port", "0", "--admin_key_file", write_key(folder)]
        if arguments.config:
            flags += ["--config", arguments.config]
        ranks = arguments.memory.count(",") + 1
        with skipper_process.Server(arguments.binary, flags, ranks=ranks if ranks > 1 else 0) as server:
            with Load(server, arguments.load):
                for memory in arguments.then:
                    rows.append(switch(server, arguments, memory))
                    print_row(rows[-1])
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    sizes = [num_bytes(memory) for memory in (arguments.memory, *arguments.then)]
    failed = [row for row, before, now in zip(rows, sizes, sizes[1:]) if now < before and not is_smaller(row)]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"policy_memory.py: error: {error}")
