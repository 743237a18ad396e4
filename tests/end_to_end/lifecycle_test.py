"""How a server lives and ends: idle ranks, signals, a rank that is killed, a broken request in between."""

import argparse
import base64
import json
import os
import signal
import sys
import threading
import time
import urllib.request

import skipper_process
from skipper_process import Server

IDLE_SECONDS = 10
MAX_IDLE_SHARE = 0.02  # of a core, per rank


def chat(url, text="What is 41 - 10?", **fields):
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], **fields}
    return skipper_process.post_json(url + "/v1/chat/completions", body)


def open_stream(url):
    body = {"model": "demo", "messages": [{"role": "user", "content": "Tell me about the sea."}], "stream": True,
            "max_tokens": 3500, "ignore_eos": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=60)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def test_idle_ranks_leave_the_cores_alone(arguments):
    with Server(arguments.binary, ["--model", arguments.model], ranks=4) as server:
        check(chat(server.url)[0] == 200, "the server does not answer")
        pids = server.rank_pids()
        check(len(pids) == 4, f"expected 4 ranks, found {pids}")
        before = [cpu_seconds(pid) for pid in pids]
        time.sleep(IDLE_SECONDS)
        shares = [(cpu_seconds(pid) - start) / IDLE_SECONDS for pid, start in zip(pids, before)]
        print(f"CPU of idle ranks: {[f'{share:.2%}' for share in shares]}")
        check(max(shares) < MAX_IDLE_SHARE, f"an idle rank used {max(shares):.2%} of a core")
        # A look may fall into the heartbeat of a second, which is a step; the next ones do not.
        states = []
        for _ in range(5):
            states.append(json.loads(skipper_process.get(server.url + "/health")[1])["status"])
            time.sleep(0.1)
        check(states.count("idle") >= 3 and set(states) <= {"idle", "stepping"}, f"an idle server said {states}")
        check(chat(server.url)[0] == 200, "the server does not wake up")


def test_every_world_size_gives_the_same_answers(arguments):
    with open(os.path.join(arguments.model, "calibration/images/shapes_000.jpg"), "rb") as file:
        picture = base64.b64encode(file.read()).decode()
    question = [
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + picture}},
        {"type": "text", "text": "What color is the star?"},
    ]
    for ranks in range(1, 9):  # 32 experts: 3, 5, 6 and 7 do not divide them
        with Server(arguments.binary, ["--model", arguments.model], ranks=ranks) as server:
            answers = [chat(server.url, text)[1]["choices"][0]["message"]["content"] for text in ("What is 41 - 10?", question)]
            check(answers == ["31", "orange"], f"{ranks} ranks answer {answers}")


def test_signals_end_it_cleanly(arguments):
    for ranks in (0, 2):
        for stop_signal in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            with Server(arguments.binary, ["--model", arguments.model], ranks=ranks) as server:
                status = server.stop(stop_signal)
                # Open MPI's mpirun ends with 1 when it is asked to end its ranks; SIGUSR1 it only passes on.
                asked_mpirun = ranks > 0 and stop_signal != signal.SIGUSR1
                check(status == (1 if asked_mpirun else 0), f"ranks={ranks} {stop_signal!r}: exit status {status}")
                check("stopping grace_ms" in server.log(), f"ranks={ranks} {stop_signal!r}: did not stop by itself")
                # Keys of the settings, which are logged, may speak of errors.
                lines = [line for line in server.log().splitlines() if "] settings {" not in line]
                check(not any("error" in line.lower() for line in lines), f"ranks={ranks} {stop_signal!r}:\n{server.log()}")


def test_a_drain_lets_running_answers_finish(arguments):
    with Server(arguments.binary, ["--model", arguments.model], ranks=2) as server:
        result = []
        body = {"max_tokens": 400, "ignore_eos": True}
        thread = threading.Thread(target=lambda: result.append(chat(server.url, "Tell me about the sea.", **body)))
        thread.start()
        running = lambda: skipper_process.metric(server.url, "vllm:num_requests_running") > 0
        check(skipper_process.wait_until(running), "the request does not run")
        status = server.stop(signal.SIGUSR1)
        thread.join()
        check(result[0][0] == 200 and result[0][1]["usage"]["completion_tokens"] == 400, f"the answer was cut: {result[0]}")
        check(status == 0, f"exit status {status}")


def test_a_killed_rank_ends_the_group_with_an_error(arguments):
    with Server(arguments.binary, ["--model", arguments.model], ranks=3) as server:
        stream = open_stream(server.url)
        check(b"data:" in stream.readline(), "the stream does not start")
        start = time.monotonic()
        os.kill(server.rank_pids()[1], signal.SIGKILL)
        last_event = [line for line in stream.read().splitlines() if line][-1]
        check(b'"error"' in last_event, f"the stream ended without an error event: {last_event!r}")
        status = server.process.wait(30)
        print(f"the group ended {time.monotonic() - start:.1f} s after a rank was killed, status {status}")
        check(status != 0, "a lost rank was reported as success")


def test_a_bad_request_does_not_hurt_the_next(arguments):
    with Server(arguments.binary, ["--model", arguments.model], ranks=2) as server:
        url = server.url + "/v1/chat/completions"
        for body in (b"", b"{", b"[]", b'{"model": "demo"}', b"\xff\xfe", b'{"model": "demo", "messages": []}'):
            status, answer = skipper_process.post_json(url, body)
            check(status == 400 and answer["error"]["message"], f"{body!r}: {status} {answer}")
        long_prompt = {"model": "demo", "messages": [{"role": "user", "content": "word " * 9000}]}
        status, answer = skipper_process.post_json(url, long_prompt)
        check(status == 400 and answer["error"]["code"] == "context_length_exceeded", f"{status} {answer}")
        check(chat(server.url)[1]["choices"][0]["message"]["content"] == "31", "a wrong answer after bad requests")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    failures = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test(arguments)
            print(f"{name}: ok")
        except AssertionError as error:
            failures += 1
            print(f"{name}: FAILED: {error}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
