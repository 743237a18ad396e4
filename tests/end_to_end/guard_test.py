"""The guard on two ranks: a shard with wrong scales is refused by its hash, or found while it serves and replaced."""

import json
import os
import shutil
import struct

import skipper_process
from admin_client import Admin, check, write_key
from command_check import EXIT_ERROR, check_refusal, read_json, run_checks, write_json
from skipper_process import Server, metric

FORMAT = "int4a-g32"
WRONG_LAYER, WRONG_EXPERT = 2, 5
QUESTIONS = ("What is 83 + 20?", "Spell the word 'house'.", "Sort these numbers: 5, 3, 9.", "Tell me about the sea.")


def scale_bf16(data, factor):
    values = [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    return b"".join(struct.pack("<f", value * factor)[2:] for value in values)


def scale_tensor(path, name, factor):
    """Multiplies a BF16 tensor of a safetensors file in place; False when it is not in there."""
    with open(path, "r+b") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(header_bytes))
        if name not in header:
            return False
        begin, end = header[name]["data_offsets"]
        file.seek(8 + header_bytes + begin)
        scaled = scale_bf16(file.read(end - begin), factor)
        file.seek(8 + header_bytes + begin)
        file.write(scaled)
    return True


class Case:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.good, self.wrong = os.path.join(folder, "good"), os.path.join(folder, "wrong")
        self.run(["quantize", "--model", arguments.model, "--experts", FORMAT, "--out", self.good])
        shutil.copytree(self.good, self.wrong)
        name = f"model.language_model.layers.{WRONG_LAYER}.mlp.experts.{WRONG_EXPERT}.down.scales"
        shards = [os.path.join(self.wrong, file) for file in os.listdir(self.wrong) if file.endswith(".safetensors")]
        check(sum(scale_tensor(shard, name, 1.5) for shard in shards) == 1, f"{name} is in none of {shards}")

    def run(self, flags):
        result = skipper_process.run(self.arguments.binary, flags)
        check(result.returncode == 0, f"{flags}: status {result.returncode}\n{result.stderr}")

    def config(self, name, **guard):
        return write_json(os.path.join(self.folder, name + ".json"), {"guard": guard})

    def serve(self, model, config=None, flags=()):
        more = ["--config", config, "--admin_port", "0", "--admin_key_file", write_key(self.folder)] if config else []
        return Server(self.arguments.binary, ["--model", model, "--device", "cpu", *more, *flags], ranks=2)

    def refusal(self, name, flags, expected, ranks=0):
        result = skipper_process.run(self.arguments.binary, ["serve", "--port", "0", "--device", "cpu", *flags], ranks=ranks)
        return check_refusal(name, result, EXIT_ERROR, expected)


def answers(server):
    """What the server says, and how many tokens that took."""
    found = []
    for question in QUESTIONS:
        body = {"model": "any", "messages": [{"role": "user", "content": question}], "max_tokens": 16, "temperature": 0}
        body["model"] = json.loads(skipper_process.get(server.url + "/v1/models")[1])["data"][0]["id"]
        status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
        check(status == 200, f"{status} {answer}")
        found.append(answer["choices"][0]["message"]["content"])
    return found


class Guard:
    def __init__(self, server):
        self.admin = Admin(server)
        self.url = self.admin.url.replace("operating_point", "guard")

    def ask(self, method, body=None):
        status, answer = self.admin.ask(method, body, url=self.url)
        check(status == 200, f"{method} {body}: {status} {answer}")
        return answer


def check_clean(case):
    """The right weights: no alarm, and the answers of a server without a guard."""
    config = case.config("clean", share=0.3, request_share=1.0, reference_model=case.arguments.model, min_rows=8)
    with case.serve(case.good) as server:
        expected = answers(server)
    with case.serve(case.good, config) as server:
        for _ in range(3):
            check(answers(server) == expected, "the guard changes answers")
        enough = skipper_process.wait_until(lambda: metric(server.url, "skipper_guard_scored_tokens_total") > 30)
        state = Guard(server).ask("GET")
        print(f"clean: {state}")
        check(enough, f"no answer was scored: {state}")
        check(state["rollbacks"] == 0 and state["breach"] is None and state["serves"] == case.good, f"false alarm: {state}")
        check(0.02 < state["relative_error"] < 0.2 and state["kl"] > 0, f"{state}")
        check(metric(server.url, "skipper_guard_rows_total") > 1000, "few rows are compared")
        check(metric(server.url, "skipper_guard_kl") > 0 and metric(server.url, "skipper_guard_rollbacks_total") == 0, "metrics")


def check_trip(server, guard, expected, log, term):
    answers(server)  # while the guard looks
    state = guard.ask("GET")
    print(f"wrong scales: {state}")
    check(state["serves"] == "reference" and state["term"] == term, f"the guard did not step in: {state}")
    check(f"expert {WRONG_EXPERT} of MoE layer {WRONG_LAYER}" in state["breach"]["text"], f"another expert: {state}")
    check(answers(server) == expected, "the answers afterwards are not those of the original experts")
    with open(log, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    check([line["action"] for line in lines] == ["rollback", "arm"] * term + ["rollback"], f"{lines}")
    last = lines[-1]
    check(last["expert"] == WRONG_EXPERT and last["measured"] > last["threshold"] and last["term"] == term, f"{last}")
    return last


def check_wrong_scales(case):
    log = os.path.join(case.folder, "guard.jsonl")
    config = case.config("wrong", share=0.5, reference_model=case.arguments.model, log=log, min_rows=4)
    with case.serve(case.arguments.model) as server:
        expected = answers(server)
    with case.serve(case.wrong, config) as server:
        guard = Guard(server)
        first = check_trip(server, guard, expected, log, 0)
        check(first["samples"] < 64 and metric(server.url, "skipper_guard_rollbacks_total") == 1, f"{first}")
        state = guard.ask("POST", {"arm": True})
        check(state["serves"] == case.wrong and state["term"] == 1 and state["breach"] is None, f"{state}")
        check_trip(server, guard, expected, log, 1)
        status, answer = guard.admin.ask("POST", {"arm": 1}, url=guard.url)
        check(status == 400 and "arm" in answer["error"]["message"], f"{status} {answer}")


def check_return_to_last_good_plan(case):
    """A shard is wrong while the experts of a policy are read from it: the reference steps in, then the policy before."""
    served, log = os.path.join(case.folder, "served"), os.path.join(case.folder, "return.jsonl")
    shutil.copytree(case.arguments.model, served, ignore=shutil.ignore_patterns("eval", "calibration"))
    config = case.config("policies", share=0.5, reference_model=case.arguments.model, log=log, min_rows=8)
    quality, small = (os.path.join(case.folder, name) for name in ("quality.json", "small.json"))
    common = ["plan", "--model", served, "--device", "cpu", "--ranks", "2", "--config", config]
    case.run([*common, "--memory", "400M", "--out", quality])
    case.run([*common, "--memory", "225M,222M", "--owners_of", quality, "--out", small])
    policies = ["--policies", f"quality={quality},small={small}"]
    with case.serve(served, config, policies) as server:
        guard, expected = Guard(server), answers(server)
        wrong, right = (os.path.join(folder, "model-00002-of-00003.safetensors") for folder in (served, case.arguments.model))
        os.remove(wrong)  # what is mapped of it stays
        shutil.copy(right, wrong)
        check(scale_tensor(wrong, f"model.language_model.layers.{WRONG_LAYER}.mlp.experts.down_proj", 1.5), "no such tensor")
        status, answer = guard.admin.ask("POST", {"policy": "small"}, url=guard.url.replace("guard", "policy"))
        check(status == 200 and answer["last"]["moved_bytes"] > 0, f"{status} {answer}")
        shutil.copy(right, wrong)
        for _ in range(4):
            answers(server)
        check(skipper_process.wait_until(lambda: guard.ask("GET")["serves"] == "quality"), f"{guard.ask('GET')}")
        state = guard.ask("GET")
        print(f"back to the last good plan: {state}")
        check(state["version"] == 3 and state["rollbacks"] == 1 and state["breach"] is None, f"{state}")
        check(answers(server) == expected, "the last good plan answers otherwise than before")
    with open(log, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    check([line["action"] for line in lines] == ["rollback", "return"], f"{lines}")
    check(lines[0]["from"] == {"name": "small", "version": 2} and lines[0]["moe_layer"] == WRONG_LAYER, f"{lines[0]}")
    check(lines[1]["to"] == {"name": "quality", "version": 3}, f"{lines[1]}")


def check_refusals(case):
    plan = os.path.join(case.folder, "plan.json")
    case.run(["plan", "--model", case.good, "--device", "cpu", "--memory", "2G", "--hashes", "true", "--out", plan])
    failures = case.refusal("wrong hash", ["--model", case.wrong, "--plan", plan], "has the hash ")
    guarded = case.config("other", share=0.1)
    failures += case.refusal("no reference", ["--model", case.good, "--config", guarded], "guard.reference_model: ")
    guarded = case.config("self", share=0.1, reference_model=case.good)
    failures += case.refusal("rounded reference", ["--model", case.good, "--config", guarded], "is quantised; name the directory")
    guarded = case.config("share", share=1.5)
    failures += case.refusal("share", ["--model", case.good, "--config", guarded], "guard.share: 1.5 is outside of 0 to 1")
    return failures + check_budget(case)


def check_budget(case):
    """A plan that was made without a guard has no room for one; with it, there is."""
    memory = ["--memory", "215M"]
    guarded = case.config("guarded", share=0.1)
    flags = ["--model", case.arguments.model, "--config", guarded]
    bare, roomy = (os.path.join(case.folder, name) for name in ("bare.json", "roomy.json"))
    case.run(["plan", "--model", case.arguments.model, "--device", "cpu", *memory, "--out", bare])
    failures = case.refusal("no room", [*flags, "--plan", bare], "guard.share: the reference experts of rank 0 take ")
    failures += case.refusal("no memory", [*flags, *memory], "short by ")
    case.run(["plan", *flags, "--device", "cpu", "--memory", "260M", "--out", roomy])
    use = read_json(roomy)["ranks"][0]["host"]
    check(use["reference_experts"] > 0, f"{use}")
    with Server(case.arguments.binary, [*flags, "--device", "cpu", "--plan", roomy]) as server:
        answers(server)
        check(metric(server.url, "skipper_guard_rows_total") > 0, "no row is compared")
    return failures


def check_all(arguments, folder):
    case = Case(arguments, folder)
    failures = check_refusals(case)
    check_clean(case)
    check_wrong_scales(case)
    check_return_to_last_good_plan(case)
    return failures


if __name__ == "__main__":
    run_checks(check_all)
