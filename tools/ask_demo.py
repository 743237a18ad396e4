"""Asks a running demo server one text question and one about a picture, at level 0 and at the server's own level.

Prints each question, the picture's file, the answer as it streams in, and the payload bytes that crossed ranks for it.
Standard library only.
"""

import base64
import json
import pathlib
import re
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = pathlib.Path("models/demo/calibration/images/shapes_000.jpg")
TEXT_QUESTION = "What is 83 + 20?"
PICTURE_QUESTION = "What color is the star?"


def payload_between_ranks(url):
    """Sum over the hops that leave a rank, from the server's own counters."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as response:
        text = response.read().decode()
    samples = re.findall(r'^skipper_payload_bytes_total\{([^}]*)\} (\S+)$', text, re.MULTILINE)
    return sum(int(float(value)) for labels, value in samples if 'hop="local"' not in labels)


def ask(url, content, tier):
    """Streams one answer to stdout and returns it."""
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "service_tier": tier,
        "temperature": 0,
    }
    request = urllib.request.Request(
        url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer = ""
    with urllib.request.urlopen(request, timeout=60) as response:
        for line in response:
            data = line.decode().strip().removeprefix("data: ")
            if not data or data == "[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                sys.exit(f"the server reports: {event['error']['message']}")
            piece = event["choices"][0]["delta"].get("content", "")
            print(piece, end="", flush=True)
            answer += piece
    return answer


def ask_at_both_levels(url, content):
    for label, tier in (("level 0 (nothing skipped)", "gold"), ("level 1 (experts skipped)", "default")):
        before = payload_between_ranks(url)
        print(f"  answer at {label}: ", end="", flush=True)
        ask(url, content, tier)
        print(f"\n    payload between ranks: {payload_between_ranks(url) - before:,} bytes")


def main():
    url = sys.argv[1].rstrip("/")
    print(f"\nquestion: {TEXT_QUESTION}")
    ask_at_both_levels(url, TEXT_QUESTION)
    picture = base64.b64encode((ROOT / PICTURE).read_bytes()).decode()
    print(f"\nquestion: {PICTURE_QUESTION}\npicture:  {PICTURE}")
    ask_at_both_levels(
        url,
        [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + picture}},
            {"type": "text", "text": PICTURE_QUESTION},
        ],
    )


if __name__ == "__main__":
    main()
