"""The admin listener on two ranks: levels change while an answer streams, and usage.skipper tells what that did."""

import argparse
import http.client
import json
import os
import sys
import tempfile

import skipper_process
from admin_client import KEY, Admin, check, write_key
from skipper_process import Server, metric

NUM_LAYERS = 6
TOP_K = 4
EXPERTS_BITS = 16


def point(tau_text, tau_vision=0.0):
    alpha = [1.0 / NUM_LAYERS] * NUM_LAYERS
    return {"alpha": {"text": alpha, "vision": alpha}, "tau": {"text": tau_text, "vision": tau_vision}}


def chat(server, text="Tell me about the sea.", **fields):
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 30, "min_tokens": 30, **fields}
    return skipper_process.post_json(server.url + "/v1/chat/completions", body)


def usage_of(answer):
    status, body = answer
    check(status == 200, f"{status} {body}")
    return body["usage"]["skipper"]


class Stream:
    """An answer that is read chunk by chunk."""

    def __init__(self, server, num_tokens):
        host = server.url.removeprefix("http://")
        body = {"model": "demo", "messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": num_tokens,
                "min_tokens": num_tokens, "stream": True, "stream_options": {"include_usage": True}}
        self.connection = http.client.HTTPConnection(host, timeout=60)
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.response = self.connection.getresponse()
        check(self.response.status == 200, f"stream: {self.response.status}")

    def chunks(self):
        for line in self.response:
            text = line.decode().strip()
            if text.startswith("data: {"):
                yield json.loads(text.removeprefix("data: "))


def test_tells_and_changes_what_is_in_force(server, admin):
    state = admin.get()
    check(state["level"] == 1 and len(state["levels"]) == 3, f"{state}")
    check(state["levels"][0]["tau"] == {"text": 0.0, "vision": 0.0}, f"{state}")
    check(state["levels"][2]["measured"] == {"kl": 0.5}, f"{state}")
    version = state["table_version"]
    check(admin.set({"level": 2})["level"] == 2, "level 2 was not taken")
    check(admin.get()["level"] == 2 and admin.get()["table_version"] == version, "level 2 is not in force")
    uploaded = admin.set(point(0.03))
    check(uploaded["level"] == 3 and len(uploaded["levels"]) == 4, f"{uploaded}")
    check(uploaded["table_version"] == version + 1, f"{uploaded}")
    check(admin.set(point(0.03))["level"] == 3 and len(admin.get()["levels"]) == 4, "the same point became a level twice")
    check(metric(server.url, "skipper_level") == 3, "skipper_level is not 3")
    check(metric(server.url, "skipper_level_changes_total") >= 2, "the changes are not counted")
    admin.set({"level": 0})


def test_usage_tells_what_skipping_did(server, admin):
    admin.set({"level": 0})
    exact = usage_of(chat(server))
    check(exact["level"] == 0 and exact["pairs_skipped"] == 0 and exact["bytes_saved"] == 0, f"level 0 skips: {exact}")
    check(exact["pairs_run"] > 0 and exact["pairs_run"] % TOP_K == 0, f"{exact}")
    check(exact["bytes_sent"] > 0, f"two ranks exchange nothing: {exact}")
    check(exact["mean_bits"] == EXPERTS_BITS, f"{exact}")
    skipped = usage_of(chat(server, skipper={"level": 2}))
    check(skipped["level"] == 2 and skipped["pairs_skipped"] > skipped["pairs_run"], f"level 2 skips little: {skipped}")
    check(skipped["pairs_run"] + skipped["pairs_skipped"] == exact["pairs_run"], f"pairs are lost: {skipped} {exact}")
    # The answers differ, and with them how many ranks a token's experts are on.
    check(skipped["bytes_saved"] > skipped["bytes_sent"], f"level 2 saves little: {skipped}")
    check(skipped["bytes_sent"] < exact["bytes_sent"] / 2, f"{skipped} {exact}")
    two = usage_of(chat(server, n=2))
    check(two["pairs_run"] == 2 * exact["pairs_run"], f"two choices: {two}")
    before = metric(server.url, "skipper_pairs_total", outcome="skipped", phase="generated", layer="0", token_class="text")
    usage_of(chat(server, skipper={"level": 2}))
    after = metric(server.url, "skipper_pairs_total", outcome="skipped", phase="generated", layer="0", token_class="text")
    check(0 < after - before <= 30 * TOP_K, f"pairs of generated tokens in the first layer: {before} {after}")


def test_the_level_switches_while_an_answer_streams(server, admin):
    num_tokens = 1000
    admin.set({"level": 0})
    stream = Stream(server, num_tokens)
    chunks = stream.chunks()
    for _ in range(5):
        next(chunks)
    in_force = admin.set({"level": 2})
    check(in_force["level"] == 2, f"{in_force}")
    rest = list(chunks)
    usage = rest[-1]["usage"]["skipper"]
    check(rest[-1]["usage"]["completion_tokens"] == num_tokens, f"{rest[-1]['usage']}")
    check(usage["level"] == 2 and usage["pairs_skipped"] > 0, f"the switch did not reach the stream: {usage}")
    check(usage["pairs_run"] > 5 * NUM_LAYERS * TOP_K, f"the first tokens did not run at level 0: {usage}")
    admin.set({"level": 0})


def test_requests_choose_up_to_their_ceiling(server, admin):
    admin.set({"level": 2})
    check(usage_of(chat(server))["level"] == 2, "a request does not follow the global level")
    check(usage_of(chat(server, service_tier="gold"))["pairs_skipped"] == 0, "gold skips")
    check(usage_of(chat(server, service_tier="silver"))["level"] == 1, "silver's ceiling does not hold")
    check(usage_of(chat(server, skipper={"full_quality": True}))["pairs_skipped"] == 0, "full quality skips")
    highest = len(admin.get()["levels"]) - 1
    status, body = chat(server, skipper={"level": highest + 1})
    check(status == 400 and body["error"]["param"] == "skipper.level", f"{status} {body}")
    check(f"ceiling of {highest}" in body["error"]["message"], f"{body}")
    status, body = chat(server, service_tier="silver", skipper={"level": 2})
    check(status == 400 and "service_tier silver, which is 1" in body["error"]["message"], f"{status} {body}")
    status, body = chat(server, skipper={"quality": 1})
    check(status == 400 and body["error"]["param"] == "skipper.quality", f"{status} {body}")
    admin.set({"level": 0})


def test_an_uploaded_level_is_under_the_ceilings_that_it_keeps(server, admin):
    """Silver may go up to level 1, with thresholds of 0.01: a gentler level is under it, a harsher one is not."""
    gentle, harsh = admin.set(point(0.005))["level"], admin.set(point(0.5))["level"]
    state = admin.get()
    check(state["places"][gentle] == 1 and state["places"][harsh] == 2, f"places {state['places']} of {gentle} and {harsh}")
    check(usage_of(chat(server, service_tier="silver"))["level"] == 1, "silver follows a level above its ceiling")
    check(usage_of(chat(server, service_tier="silver", skipper={"level": gentle}))["level"] == gentle, "silver is refused")
    status, body = chat(server, service_tier="silver", skipper={"level": harsh})
    check(status == 400 and body["error"]["param"] == "skipper.level", f"{status} {body}")
    admin.set({"level": gentle})
    check(usage_of(chat(server, service_tier="silver"))["level"] == gentle, "silver does not follow a level under its ceiling")
    admin.set({"level": 0})


def test_skipping_switches_off_where_it_decides_for_nothing(server, admin):
    nothing = admin.set(point(1e-9, 1e-9))["level"]
    check(admin.get()["switched_off"] == [], "layers are switched off from the start")
    exact = usage_of(chat(server, max_tokens=400, min_tokens=400, skipper={"full_quality": True}))
    idle = usage_of(chat(server, max_tokens=400, min_tokens=400))
    check(idle["level"] == nothing and idle["pairs_run"] == exact["pairs_run"], f"{idle} {exact}")
    off = admin.get()["switched_off"]
    check({entry["layer"] for entry in off if entry["phase"] == "generated"} == set(range(NUM_LAYERS)), f"{off}")
    check(all(entry["deciding_ms"] > entry["saved_ms"] for entry in off), f"{off}")
    for layer in range(NUM_LAYERS):
        is_off = metric(server.url, "skipper_skipping_switched_off", layer=str(layer), phase="generated")
        check(is_off == 1, f"layer {layer}: gauge {is_off}")
    check("skipping in MoE layer 0, generated tokens, is switched off" in server.log(), "the log says nothing of it")
    check(len(admin.get()["levels"]) == nothing + 1, "forms of levels are shown")
    admin.set({"level": 0})
    check(admin.get()["switched_off"] == [], "layers stay switched off at another level")


def test_strangers_and_bad_bodies_are_refused(server, admin):
    for key in (None, "wrong", KEY[:-1], KEY + "x"):
        status, body = admin.ask("POST", {"level": 2}, key=key)
        check(status == 401 and body["error"]["code"] == "invalid_api_key", f"key {key}: {status} {body}")
    for bad in (b"", b"{", b"[]", {"level": -1}, {"level": 99}, {"level": "1"}, {"level": 1, "x": 2}, {}, point(-1.0),
                {**point(0.1), "model_fingerprint": "0"}, {**point(0.1), "taus": 1}):
        status, body = admin.ask("POST", bad)
        check(status == 400 and body["error"]["message"], f"{bad}: {status} {body}")
    check("tau: text: -1" in admin.ask("POST", point(-1.0))[1]["error"]["message"], "the key is not named")
    check(admin.ask("DELETE")[0] == 405, "DELETE is not refused")
    check(admin.ask("GET", url=admin.url + "s")[0] == 404, "an unknown path is not refused")
    check(admin.ask("POST", b" " * (5 << 20))[0] == 413, "a large body is not refused")
    check(skipper_process.get(server.url + "/admin/operating_point")[0] == 404, "the public listener has admin paths")
    check(admin.get()["level"] == 0, "a refused change had an effect")


def check_start_is_refused(arguments, key_arguments, expected, exit_status):
    result = skipper_process.run(arguments.binary, ["serve", "--model", arguments.model, "--port", "0", *key_arguments])
    lines = result.stderr.strip().splitlines()
    check(result.returncode == exit_status, f"{key_arguments}: status {result.returncode}: {result.stderr}")
    check(expected in lines[-1] and lines[-1].startswith("skipper: error: "), f"{key_arguments}: {result.stderr}")


def check_key_files(arguments, folder):
    readable = write(folder, "readable", KEY, 0o644)
    empty = write(folder, "empty", "", 0o600)
    for path, expected in ((readable, "chmod 600"), (empty, "is empty"), (os.path.join(folder, "none"), "No such file")):
        check_start_is_refused(arguments, ["--admin_port", "0", "--admin_key_file", path], expected, 1)
    check_start_is_refused(arguments, ["--admin_port", "0"], "needs --admin_key_file", 2)
    check_start_is_refused(arguments, ["--admin_key_file", empty], "needs --admin_port", 2)
    check_start_is_refused(arguments, ["--admin_port", "65536", "--admin_key_file", empty], "out of range", 2)


def write(folder, name, text, mode):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        levels = {"version": 1, "levels": [point(0.0), point(0.01, 0.01), {**point(2.0, 2.0), "measured": {"kl": 0.5}}]}
        ladder = write(folder, "frontier.json", json.dumps(levels), 0o644)
        settings = {"service_tiers": {"silver": 1}, "skipping": {"window_steps": 100}}
        config = write(folder, "config.json", json.dumps(settings), 0o644)
        key_file = write_key(folder)
        check_key_files(arguments, folder)
        options = ["--model", arguments.model, "--config", config, "--operating_point", ladder, "--level", "1",
                   "--admin_port", "0", "--admin_key_file", key_file]
        with Server(arguments.binary, options, ranks=arguments.ranks) as server:
            admin = Admin(server)
            for name, test in list(globals().items()):
                if not name.startswith("test_"):
                    continue
                try:
                    test(server, admin)
                    print(f"{name}: ok")
                except AssertionError as error:
                    failures += 1
                    print(f"{name}: FAILED: {error}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
