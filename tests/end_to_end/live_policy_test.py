"""Two ranks change to plans for other budgets while they serve, and hold tiers above the policy that they name."""

import json
import os
import threading

import skipper_process
from admin_client import check
from command_check import EXIT_ERROR, EXIT_USAGE, run_checks, write_json
from policy_test import Case, Policy, answers, complete
from skipper_process import wait_until

LONG = 1200  # tokens: some seconds


def request(server, tier, tokens):
    """The status and the answer of a request that goes on for so many tokens."""
    name = json.loads(skipper_process.get(server.url + "/v1/models")[1])["data"][0]["id"]
    body = {"model": name, "messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": tokens,
            "temperature": 0, "ignore_eos": True, "service_tier": tier}
    return skipper_process.post_json(server.url + "/v1/chat/completions", body, timeout=300)


class Running:
    """A request or a switch on a thread of its own; result() waits for it."""

    def __init__(self, work):
        self.value = None
        self.thread = threading.Thread(target=lambda: setattr(self, "value", work()))
        self.thread.start()

    def result(self):
        self.thread.join()
        return self.value


def check_switched(status, answer, name):
    check(status == 200 and answer["policy"] == name and answer["last"]["failure"] is None, f"{name}: {status} {answer}")
    last = answer["last"]
    print(f"{name}: loss {answer['predicted_loss']}, moved {last['moved_bytes']}, staged in {last['staging_seconds']} s, "
          f"freed in {last['freed_seconds']} s, resident {last['resident_bytes']}")
    check(last["freed_seconds"] is not None and len(last["resident_bytes"]) == 2, f"not freed in time: {answer}")
    return answer


def check_memory(case, expected):
    """A server that was started with --memory changes to other budgets and back."""
    with case.serve("--memory", "400M") as server:
        policy = Policy(server)
        start = policy.get()
        check(start["policy"] == "memory:400M" and answers(server) == expected["quality"], f"{start}")
        small = check_switched(*policy.post({"memory": ["210M", "207M"], "deadline_seconds": 30}), "memory:210M,207M")
        check(small["predicted_loss"] > start["predicted_loss"] and small["last"]["moved_bytes"] > 0, f"{start} {small}")
        for rank in small["last"]["resident_bytes"]:
            check(rank["after"] < rank["before"] - 5_000_000, f"shrinking freed too little: {small}")
        check(answers(server) == expected["small"], "the answers are not those of a server with this plan")
        plans = complete(server, "What is 83 + 20?")["usage"]["skipper"]["plans"]
        check([plan["policy"] for plan in plans] == ["memory:210M,207M"], f"{plans}")
        policy.check_refused({"memory": "60M"}, 400, "do one of")
        policy.check_refused({"memory": "1G,1G,1G"}, 400, "3 sizes for 2 ranks")
        policy.check_refused({"memory": "much"}, 400, "is no size of memory")
        policy.check_refused({"memory": "400M", "policy": "memory:400M"}, 400, "does not go with policy")
        state = policy.get()
        check(state["policy"] == "memory:210M,207M" and state["failures"] == 0 and state["switches"] == 1, f"{state}")
        check_switched(*policy.post({"policy": "memory:400M"}), "memory:400M")
        check(answers(server) == expected["quality"], "the way back")


def check_room(case):
    """A full budget has no room for two sets of experts, unless the operator gives more for the time of the switch."""
    with case.serve("--plan", case.small) as server:
        policy = Policy(server)
        check(policy.get()["policy"] == "small", f"{policy.get()}")
        policy.check_refused({"memory": ["209M", "206M"]}, 503, "send extra_memory ")
        policy.check_refused({"memory": ["209M", "206M"], "extra_memory": "lots"}, 400, "extra_memory: 'lots' is no size")
        check_switched(*policy.post({"memory": ["209M", "206M"], "extra_memory": "200M"}), "memory:209M,206M")


def tier_config(case, name, lowest):
    plans = [{"name": "quality", "plan": case.quality}, {"name": "small", "plan": case.small}]
    config = {"policies": {"plans": plans, "first": "quality"},
              "service_tiers": {"gold": {"level": 0, "policy": lowest}, "silver": {"level": 0, "policy": "small"}}}
    return write_json(os.path.join(case.folder, name), config)


def check_refused_tier(answer, expected):
    status, body = answer
    check(status == 503 and expected in body["error"]["message"] and body["error"]["type"] == "server_error", f"{status} {body}")


def check_tiers(case, expected):
    with case.serve("--config", tier_config(case, "tiers.json", "quality")) as server:
        policy = Policy(server)
        check(policy.get()["policies"] == ["quality", "small"], f"{policy.get()}")
        gold = Running(lambda: request(server, "gold", LONG))
        check(wait_until(lambda: skipper_process.metric(server.url, "vllm:num_requests_running") > 0), "no request runs")
        policy.check_refused({"policy": "small", "deadline_seconds": 0.5}, 503, "no switch to small: ")
        switch = Running(lambda: policy.post({"policy": "small", "deadline_seconds": 300}))
        check(wait_until(lambda: (policy.get()["staging"] or {}).get("waits_for_tier") == "gold"), f"{policy.get()}")
        check_refused_tier(request(server, "gold", 4), "needs policy quality, but the server is about to change to small")
        check(request(server, "silver", 4)[0] == 200 and policy.get()["policy"] == "quality", "silver may run under both")
        status, answer = gold.result()
        plans = answer["usage"]["skipper"]["plans"]
        check(status == 200 and [plan["policy"] for plan in plans] == ["quality"], f"gold ran on {plans}")
        check_switched(*switch.result(), "small")
        check_refused_tier(request(server, "gold", 4), "service_tier gold needs policy quality, but small serves")
        check(request(server, "auto", 4)[0] == 200 and answers(server) == expected["small"], "other tiers go on")
        policy.switch("quality")
        check(request(server, "gold", 4)[0] == 200, "gold runs again")


def check_refusals(case):
    unknown = tier_config(case, "unknown.json", "best")
    known = tier_config(case, "known.json", "small")
    policies = f"quality={case.quality}"
    nothing_best = "service_tiers.gold.policy: there is no policy 'best'; the policies are quality, small"
    failures = case.refusal("tier", EXIT_ERROR, nothing_best, "--config", unknown)
    failures += case.refusal("both", EXIT_USAGE, "flag --policies and the section policies of --config exclude each other",
                             "--config", known, "--policies", policies)
    failures += case.refusal("plan", EXIT_USAGE, "flag --plan and the section policies", "--config", known, "--plan", case.small)
    return failures


def check_all(arguments, folder):
    case = Case(arguments, folder)
    failures = check_refusals(case)
    expected = {}
    for name, plan in (("quality", case.quality), ("small", case.small)):
        with case.serve("--plan", plan) as server:
            expected[name] = answers(server)
    check_memory(case, expected)
    check_room(case)
    check_tiers(case, expected)
    return failures


if __name__ == "__main__":
    run_checks(check_all)
