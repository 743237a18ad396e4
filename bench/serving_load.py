#!/usr/bin/env python3
"""Closed-loop load on a running server: TTFT, time per output token and tokens/s at given numbers of streams.

    python3 bench/serving_load.py http://127.0.0.1:8000 --streams 1 32 --seconds 10

Every stream sends one chat after another, each answered with exactly --output_tokens tokens (ignore_eos), and counts what
arrives. Before timing, each stream's first answer is compared with the same question asked alone: greedy answers must be
identical. Standard library only.
"""

import argparse
import http.client
import json
import statistics
import threading
import time
import urllib.parse


def question(stream, index):
    """Different tokens in every stream and request."""
    a, b = 11 + stream * 3 + index * 7, 5 + stream + index
    return f"Compute {a} + {b}. Then tell me about number {a * b} and the town of {'abcdefgh'[stream % 8]}{stream}."


def ask(address, model, text, num_tokens):
    """One streamed chat. Returns (answer, seconds to the first token, seconds in all, tokens by the server's usage)."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(*address, timeout=300)
    start = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read().decode()}")
    answer, first, tokens = "", None, 0
    for line in response:
        data = line.decode().strip().removeprefix("data: ")
        if not data or data == "[DONE]":
            continue
        event = json.loads(data)
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        if event["choices"]:
            first = first or time.monotonic() - start
            answer += event["choices"][0]["delta"].get("content", "")
    total = time.monotonic() - start
    connection.close()
    return answer, first, total, tokens


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(address, model, arguments, num_streams):
    alone = [ask(address, model, question(stream, 0), arguments.output_tokens)[0] for stream in range(num_streams)]
    results, failures, lock = [], [], threading.Lock()
    barrier = threading.Barrier(num_streams)

    def run(stream):
        barrier.wait()
        end, index = time.monotonic() + arguments.seconds, 0
        while time.monotonic() < end:
            result = ask(address, model, question(stream, index), arguments.output_tokens)
            if index == 0 and result[0] != alone[stream]:
                failures.append(f"stream {stream} got another answer than alone")
            with lock:
                results.append(result)
            index += 1

    threads = [threading.Thread(target=run, args=(stream,)) for stream in range(num_streams)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    if failures:
        raise SystemExit("\n".join(failures))
    ttft = [first for _, first, _, _ in results]
    tpot = [(total - first) / (tokens - 1) for _, first, total, tokens in results if tokens > 1]
    return {
        "streams": num_streams,
        "requests": len(results),
        "output_tokens_per_s": sum(tokens for *_, tokens in results) / seconds,
        "ttft_ms": {"p50": 1000 * statistics.median(ttft), "p99": 1000 * percentile(ttft, 0.99)},
        "tpot_ms": {"p50": 1000 * statistics.median(tpot), "p99": 1000 * percentile(tpot, 0.99)},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--output_tokens", type=int, default=64)
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    url = urllib.parse.urlsplit(arguments.url)
    address = (url.hostname, url.port)
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", "/v1/models")
    model = json.loads(connection.getresponse().read())["data"][0]["id"]
    results = []
    for num_streams in arguments.streams:
        results.append(measure(address, model, arguments, num_streams))
        print(json.dumps(results[-1]), flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
