"""Routing decisions in audit files: replay agrees with them, finds an edited one, and tells what another point would do."""

import json
import os
import re

import skipper_process
from admin_client import Admin, write_key
from command_check import EXIT_ERROR, EXIT_USAGE, run_checks

NUM_LAYERS = 6


class AuditTest:
    def __init__(self, arguments, folder):
        self.binary, self.model, self.folder = arguments.binary, arguments.model, folder
        self.failures = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def expect(self, condition, message):
        if not condition:
            self.failures.append(message)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def operating_point(self, name, tau):
        alpha = [1.0 / NUM_LAYERS] * NUM_LAYERS
        point = {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": tau, "vision": tau}}
        return self.write(name, json.dumps(point))

    def evaluate(self, flags):
        os.makedirs(self.path("data"), exist_ok=True)
        with open(os.path.join(self.model, "calibration/text.txt"), encoding="utf-8") as file:
            self.write("data/text.txt", file.read(6000))
        command = ["eval", "--model", self.model, "--data", self.path("data"), *flags]
        result = skipper_process.run(self.binary, command, ranks=2)
        self.expect(result.returncode == 0, f"eval ended with {result.returncode}:\n{result.stderr}")

    def replay(self, audit, *flags):
        return skipper_process.run(self.binary, ["replay", "--audit", audit, *flags], timeout=60)

    def expect_error(self, name, result, status, pattern):
        lines = [line for line in result.stderr.splitlines() if line.startswith("skipper: error:")]
        found = len(lines) == 1 and re.search(pattern, lines[0])
        self.expect(found and result.returncode == status, f"{name}: status {result.returncode}, {lines}")

    def check_replay(self, audit):
        result = self.replay(audit)
        self.expect(result.returncode == 0, f"replay of {audit}: {result.stdout}{result.stderr}")
        counts = re.match(r"decisions (\d+), pairs (\d+), skipped (\d+) .*different 0\n", result.stdout)
        self.expect(counts and 0 < int(counts[3]) < int(counts[2]), f"replay of {audit} says {result.stdout}")
        print(result.stdout, end="")
        return int(counts[1]) if counts else 0

    def check_edits(self, audit):
        with open(audit, encoding="utf-8") as file:
            lines = file.readlines()
        number = next(i for i, line in enumerate(lines) if '"kept":[true' in line and '"protected"' not in line)
        edited = lines[:number] + [lines[number].replace('"kept":[true', '"kept":[false', 1)] + lines[number + 1:]
        result = self.replay(self.write("edited", "".join(edited)))
        named = rf"edited: line {number + 1}: request \d+, position \d+, layer \d+: expert"
        self.expect_error("edited", result, EXIT_ERROR, named)

        result = self.replay(self.write("cut", "".join(lines[:10]) + lines[10][:40]))
        self.expect(result.returncode == 0 and "was cut off" in result.stdout, f"cut: {result.stdout}{result.stderr}")
        other_version = lines[0].replace('"skipper_audit":1', '"skipper_audit":2')
        result = self.replay(self.write("version", other_version + "".join(lines[1:])))
        self.expect_error("version", result, EXIT_ERROR, "version 2 but this build reads version 1")
        result = self.replay(os.path.join(self.model, "config.json"))
        self.expect_error("no audit", result, EXIT_ERROR, "is not the start of an audit file")

    def check_what_if(self, audit):
        all_skipped = self.operating_point("all.json", 2.0)
        result = self.replay(audit, "--operating_point", all_skipped, "--ranks", "4")
        self.expect(re.search(r"text +\d+ .*\(100\.0 %\)\n", result.stdout), f"what if: {result.stdout}{result.stderr}")
        print(result.stdout, end="")
        result = self.replay(audit, "--operating_point", all_skipped, "--level", "2")
        self.expect_error("level", result, EXIT_USAGE, "--level: 2 does not exist.*levels 0 to 1")

    def check_sampling(self):
        self.evaluate(["--audit_file", self.path("none.jsonl"), "--audit_rate", "0"])
        for rank in (0, 1):
            with open(self.path(f"none.jsonl.rank{rank}"), encoding="utf-8") as file:
                self.expect(len(file.readlines()) == 2, "a rate of 0 left decisions")

    def check_usage(self):
        serve = ["serve", "--model", self.model]
        cases = {
            "rate": (serve + ["--audit_file", "x", "--audit_rate", "1.5"], "--audit_rate: 1.5.*0 to 1"),
            "no file": (serve + ["--audit_rate", "0.5"], "--audit_rate needs --audit_file"),
            "alarm": (serve + ["--imbalance_alarm", "0.5"], "--imbalance_alarm: 0.5.*under 1"),
            "no input": (["replay"], "--audit is missing"),
            "ranks": (["replay", "--audit", "x", "--ranks", "4"], "--ranks 4 needs --operating_point"),
        }
        for name, (flags, pattern) in cases.items():
            self.expect_error(name, skipper_process.run(self.binary, flags, timeout=60), EXIT_USAGE, pattern)

    def check_uploaded_level(self):
        """A level that comes while the server runs is in the audit before its first decision, on every rank."""
        audit = self.path("uploaded.jsonl")
        flags = ["--model", self.model, "--audit_file", audit, "--audit_rate", "1", "--admin_port", "0",
                 "--admin_key_file", write_key(self.folder)]
        with skipper_process.Server(self.binary, flags, ranks=2) as server:
            admin = Admin(server)
            for tau in (0.05, 0.2):
                with open(self.operating_point("uploaded.json", tau), encoding="utf-8") as file:
                    admin.set(json.load(file))
                for topic in ("rivers", "mountains"):
                    messages = [{"role": "user", "content": f"Tell me about {topic}."}]
                    body = {"model": "demo", "messages": messages, "max_tokens": 20}
                    status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
                    self.expect(status == 200, f"chat ended with {status}: {answer}")
        counts = [self.check_replay(f"{audit}.rank{rank}") for rank in (0, 1) if self.has_decisions(f"{audit}.rank{rank}")]
        self.expect(sum(counts) > 0, "no decision was logged")
        for rank in (0, 1):
            with open(f"{audit}.rank{rank}", encoding="utf-8") as file:
                tables = [len(json.loads(line)["table"]["levels"]) for line in file if '"table"' in line]
            self.expect(tables == [1, 2, 3], f"rank {rank} has tables of {tables} levels")

    @staticmethod
    def has_decisions(audit):
        with open(audit, encoding="utf-8") as file:
            return any('"experts":[' in line for line in file)

    def check_imbalance_alarm(self):
        """No load is quite even, so an alarm at 1.0001 rings once a thousand steps were seen, once."""
        messages = [{"role": "user", "content": "Tell me about rivers."}]
        body = {"model": "demo", "messages": messages, "max_tokens": 700, "min_tokens": 700}
        flags = ["--model", self.model, "--imbalance_alarm", "1.0001"]
        with skipper_process.Server(self.binary, flags, ranks=2) as server:
            alarms = lambda: skipper_process.metric(server.url, "skipper_imbalance_alarms_total")
            self.expect(alarms() == 0, "the alarm rings before anything ran")
            for _ in range(2):
                status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
                self.expect(status == 200, f"chat ended with {status}: {answer}")
            self.expect(skipper_process.wait_until(lambda: alarms() == 1), f"{alarms()} alarms")
            load = skipper_process.metric(server.url, "skipper_step_load_max_over_mean")
            self.expect(1.0001 < load <= 2.0, f"the fullest ranks have {load} times the mean")
            lines = [line for line in server.log().splitlines() if "over 1000 steps the fullest ranks had" in line]
            self.expect(len(lines) == 1 and "--imbalance_alarm 1.0001" in lines[0], f"the log says {lines}")

    def check_load_metrics(self):
        """Sixteen steps are enough for the ranks to report once."""
        messages = [{"role": "user", "content": "Tell me about rivers."}]
        body = {"model": "demo", "messages": messages, "max_tokens": 40, "ignore_eos": True}
        with skipper_process.Server(self.binary, ["--model", self.model], ranks=2) as server:
            status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
            self.expect(status == 200, f"chat ended with {status}: {answer}")
            metric = lambda name, **labels: skipper_process.metric(server.url, name, **labels)
            reported = lambda: metric("skipper_expert_load_gini", layer="0", token_class="text") > 0
            self.expect(skipper_process.wait_until(reported), "no load gauges after 40 steps")
            for layer in range(NUM_LAYERS):
                value = metric("skipper_rank_load_max_over_mean", layer=str(layer), token_class="all")
                self.expect(1.0 <= value <= 2.0, f"layer {layer}: {value} times the mean on 2 ranks")
                value = metric("skipper_expert_load_gini", layer=str(layer), token_class="text")
                self.expect(0.0 < value < 1.0, f"layer {layer}: Gini {value}")

    def run(self):
        point = self.operating_point("some.json", 0.03)
        self.evaluate(["--operating_point", point, "--audit_file", self.path("audit.jsonl"), "--audit_rate", "1"])
        audits = [self.path(f"audit.jsonl.rank{rank}") for rank in (0, 1)]
        num_decisions = [self.check_replay(audit) for audit in audits]
        self.expect(all(num_decisions), f"decisions by rank: {num_decisions}")
        self.check_edits(audits[0])
        self.check_what_if(audits[0])
        self.check_sampling()
        self.check_usage()
        self.check_uploaded_level()
        self.check_load_metrics()
        self.check_imbalance_alarm()
        return self.failures


if __name__ == "__main__":
    run_checks(lambda arguments, folder: AuditTest(arguments, folder).run())
