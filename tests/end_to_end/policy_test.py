"""Two ranks switch between plans while they answer: nothing is lost, and answers are those of servers started with each plan."""

import json
import os
import threading
from collections import Counter

import skipper_process
from admin_client import Admin, check, write_key
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, replay_audit, run_checks, write_json
from skipper_process import Server

QUESTIONS = ("What is 83 + 20?", "Spell the word 'house'.", "Sort these numbers: 5, 3, 9.", "Tell me about the sea.")
NUM_CLIENTS = 4


class Case:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.key = write_key(folder)
        self.model = self.linked_model()
        self.quality = self.plan("quality", "400M")
        self.small = self.plan("small", "210M,207M", "--owners_of", self.quality)

    def linked_model(self):
        """The model in a folder from which a file can be taken away."""
        folder = os.path.join(self.folder, "demo")
        os.mkdir(folder)
        for name in os.listdir(self.arguments.model):
            os.symlink(os.path.join(os.path.abspath(self.arguments.model), name), os.path.join(folder, name))
        return folder

    def plan(self, name, memory, *flags):
        out = os.path.join(self.folder, name + ".json")
        command = ["plan", "--model", self.model, "--ranks", "2", "--device", "cpu", "--memory", memory, "--out", out]
        result = skipper_process.run(self.arguments.binary, [*command, "--hashes", "true", *flags])
        check(result.returncode == 0, f"{command}: status {result.returncode}\n{result.stderr}")
        return out

    def changed(self, path, change):
        plan = read_json(path)
        change(plan)
        return write_json(os.path.join(self.folder, "changed.json"), plan)

    def serve(self, *flags):
        common = ["--model", self.model, "--device", "cpu", "--admin_port", "0", "--admin_key_file", self.key]
        return Server(self.arguments.binary, [*common, *flags], ranks=2)

    def refusal(self, name, status, expected, *flags):
        command = ["serve", "--port", "0", "--model", self.model, "--device", "cpu", *flags]
        return check_refusal(name, skipper_process.run(self.arguments.binary, command, ranks=2), status, expected)


class Policy:
    def __init__(self, server):
        self.admin = Admin(server)
        self.url = self.admin.url.replace("operating_point", "policy")

    def get(self):
        status, answer = self.admin.ask("GET", url=self.url)
        check(status == 200, f"{status} {answer}")
        return answer

    def post(self, body):
        return self.admin.ask("POST", body, url=self.url)

    def switch(self, name):
        status, answer = self.post({"policy": name})
        check(status == 200 and answer["policy"] == name and answer["staging"] is None, f"switch to {name}: {status} {answer}")
        return answer

    def check_refused(self, body, status, expected):
        found, answer = self.post(body)
        print(f"{body}: {found} {answer}")
        check(found == status and expected in answer["error"]["message"], f"{body}: {found} {answer}, expected {expected!r}")


def complete(server, question, tokens=16):
    name = json.loads(skipper_process.get(server.url + "/v1/models")[1])["data"][0]["id"]
    body = {"model": name, "messages": [{"role": "user", "content": question}], "max_tokens": tokens, "temperature": 0}
    status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
    check(status == 200 and answer["usage"]["completion_tokens"] > 0, f"{status} {answer}")
    return answer


def ask(server, question):
    return complete(server, question)["choices"][0]["message"]["content"]


def answers(server):
    return [ask(server, question) for question in QUESTIONS]


def check_plans(answer, names):
    """Each token ran on the version of one of these policies. Returns how many versions there were."""
    usage = answer["usage"]
    plans = usage["skipper"]["plans"]
    num_run = usage["prompt_tokens"] + usage["completion_tokens"] - 1  # the last token that is sampled never runs
    check(sum(plan["tokens"] for plan in plans) == num_run, f"{usage}")
    check({plan["policy"] for plan in plans} <= names, f"{usage}")
    return len(plans)


class Load:
    """Clients that ask without a pause until the end of the block."""

    def __init__(self, server):
        self.server, self.answers, self.failures, self.ending = server, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(NUM_CLIENTS)]

    def work(self):
        while not self.ending.is_set():
            try:
                question = QUESTIONS[len(self.answers) % len(QUESTIONS)]
                self.answers.append(complete(self.server, question, tokens=32))
            except Exception as error:  # whatever happened to a client
                self.failures.append(str(error))
                return

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *unused):
        self.ending.set()
        for thread in self.threads:
            thread.join()


def new_bytes(old, new):
    """What copies of the experts take, over all ranks, whose format differs in the two plans."""
    plan = read_json(new)
    formats = {(copy["layer"], copy["expert"]): copy["format"] for copy in read_json(old)["copies"]}
    counts = Counter((copy["rank"], copy["format"]) for copy in plan["copies"])
    changed = [copy for copy in plan["copies"] if copy["format"] != formats[copy["layer"], copy["expert"]]]
    stored = [rank["host"]["experts"] for rank in plan["ranks"]]
    return sum(stored[copy["rank"]][copy["format"]] // counts[copy["rank"], copy["format"]] for copy in changed)


def check_switching(case):
    expected = {}
    for name, plan in (("quality", case.quality), ("small", case.small)):
        with case.serve("--plan", plan) as server:
            expected[name] = answers(server)
    policies = f"quality={case.quality},small={case.small}"
    audit = os.path.join(case.folder, "audit.jsonl")
    with case.serve("--policies", policies, "--policy", "small", "--audit_file", audit, "--audit_rate", "1") as server:
        policy = Policy(server)
        check(policy.get()["policy"] == "small" and answers(server) == expected["small"], f"{policy.get()}")
        most_plans = 0
        moved = {"quality": new_bytes(case.small, case.quality), "small": new_bytes(case.quality, case.small)}
        for name in ("quality", "small", "quality"):
            with Load(server) as load:
                answer = policy.switch(name)
            last = answer["last"]
            print(f"{name}: {answer}; {len(load.answers)} answers meanwhile")
            check(not load.failures, f"requests were lost: {load.failures}")
            most_plans = max([most_plans, *(check_plans(one, {"quality", "small"}) for one in load.answers)])
            check(last["moved_bytes"] == moved[name], f"{answer}: expected new copies of {moved[name]} bytes")
            check(last["staging_seconds"] > 0 and last["step"] > 0, f"{answer}")
            check(answers(server) == expected[name], f"the answers are not those of a server with {name}")
        check(policy.switch("quality")["switches"] == 3, "nothing to switch counts as a switch")
        check(most_plans == 2, "no request ran across a switch")
        check([one["policy"] for one in policy.get()["versions"]] == ["small", "quality", "small", "quality"], f"{policy.get()}")
        policy.check_refused({"policy": "none"}, 400, "this server has quality, small")
        policy.check_refused({"memoro": "2G"}, 400, "memoro: no such key")
        policy.check_refused({"policy": "small", "deadline_seconds": 0.001}, 503, "were not ready within 1 ms")
        check(answers(server) == expected["quality"], "a switch that was given up changed the answers")
        check_metrics(server, policy.get())
        policy.switch("small")
        check(answers(server) == expected["small"], "the switch after one that was given up")
        versions = {one["version"] for one in policy.get()["versions"]}
    found = audited_versions(audit + ".rank0") | audited_versions(audit + ".rank1")
    check(found == versions, f"versions {versions} have served, but the audit has {found}")
    failures = [replay_audit(case.arguments.binary, f"{audit}.rank{rank}")[1] for rank in (0, 1)]
    check(failures == [[], []], f"the audit of what was switched: {failures}")


def check_part(case):
    """Of layers in which some experts keep their formats, those are neither made anew nor changed."""
    middle = case.plan("middle", "211M,208M", "--owners_of", case.quality)
    formats = {(copy["layer"], copy["expert"]): copy["format"] for copy in read_json(case.small)["copies"]}
    copies = read_json(middle)["copies"]
    changed = Counter(copy["layer"] for copy in copies if copy["format"] != formats[copy["layer"], copy["expert"]])
    sizes = Counter(copy["layer"] for copy in copies)
    check(any(0 < changed[layer] < sizes[layer] for layer in sizes), "the plans have no layer of which a part changes")
    with case.serve("--plan", middle) as server:
        expected = answers(server)
    policies = f"quality={case.quality},small={case.small},middle={middle}"
    with case.serve("--policies", policies, "--policy", "small") as server:
        policy = Policy(server)
        before = answers(server)
        for name, old, new, wanted in (("middle", case.small, middle, expected), ("small", middle, case.small, before)):
            last = policy.switch(name)["last"]
            print(f"{name}: {last}")
            moved = new_bytes(old, new)
            check(last["moved_bytes"] == moved, f"{last}: expected new copies of {moved} bytes")
            check(answers(server) == wanted, f"the answers are not those of a server with {name}")


def audited_versions(path):
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["plan_version"] for record in records if "request" in record}


def check_metrics(server, state):
    text = skipper_process.get(server.url + "/metrics")[1]
    text = text if isinstance(text, str) else text.decode()
    found = {line.split("{")[0]: line.split()[-1] for line in text.splitlines() if line.startswith("skipper_policy_")}
    check(f'policy="{state["policy"]}"' in text, "the policy that serves is in no metric")
    expected = {"version": state["version"], "switches_total": state["switches"], "failures_total": state["failures"],
                "moved_bytes_total": state["moved_bytes"], "staging_seconds_total": state["staging_seconds"]}
    for name, value in expected.items():
        number = float(found["skipper_policy_" + name])
        check(number > 0 and abs(number - value) <= 1e-4 * value, f"{name}: {number}, expected {value}")


def check_failures(case):
    """On one rank or on both: all go on with the old experts."""
    wrong = next(i for i, copy in enumerate(read_json(case.small)["copies"]) if copy["rank"] == 1 and copy["format"] != "bf16")
    changed = case.changed(case.small, lambda plan: plan["copies"][wrong].update(hash="0123456789abcdef"))
    with case.serve("--policies", f"quality={case.quality},wrong={changed},small={case.small}") as server:
        policy = Policy(server)
        before = answers(server)
        policy.check_refused({"policy": "wrong"}, 503, "rank 1: ")
        shard = next(name for name in os.listdir(case.model) if name.endswith(".safetensors"))
        os.rename(os.path.join(case.model, shard), os.path.join(case.folder, shard))
        policy.check_refused({"policy": "small"}, 503, shard)
        os.rename(os.path.join(case.folder, shard), os.path.join(case.model, shard))
        state = policy.get()
        check(state["failures"] == 2 and state["policy"] == "quality" and state["version"] == 1, f"{state}")
        check(answers(server) == before, "a switch that failed changed the answers")
        policy.switch("small")


def check_room(case):
    """Plans that both fill their budgets leave no room for two sets of experts."""
    smaller = case.plan("smaller", "209M,206M", "--owners_of", case.small)
    with case.serve("--policies", f"small={case.small},smaller={smaller}") as server:
        Policy(server).check_refused({"policy": "smaller"}, 503, "but the largest budget of the policies leaves experts ")


def swap_owners(plan):
    first = plan["copies"][0]
    other = next(copy for copy in plan["copies"] if copy["layer"] == first["layer"] and copy["rank"] != first["rank"]
                 and copy["format"] == first["format"])
    first["expert"], other["expert"] = other["expert"], first["expert"]


def check_refusals(case):
    moved = case.changed(case.quality, swap_owners)
    failures = case.refusal("owners", EXIT_ERROR, "make the plan with --owners_of", "--policies", f"a={case.quality},b={moved}")
    failures += case.refusal("no policy", EXIT_USAGE, "is no policy; expected NAME=PLAN.json", "--policies", "quality")
    failures += case.refusal("twice", EXIT_USAGE, "there are two policies 'a'", "--policies", "a=x.json,a=y.json")
    failures += case.refusal("other", EXIT_USAGE, "'c' is none of the policies a", "--policies", "a=x.json", "--policy", "c")
    failures += case.refusal("alone", EXIT_USAGE, "--policy needs --policies", "--policy", "c")
    failures += case.refusal("both", EXIT_USAGE, "exclude each other", "--policies", "a=x.json", "--plan", "x.json")
    return failures


def check_all(arguments, folder):
    case = Case(arguments, folder)
    failures = check_refusals(case)
    check_switching(case)
    check_part(case)
    check_failures(case)
    check_room(case)
    return failures


if __name__ == "__main__":
    run_checks(check_all)
