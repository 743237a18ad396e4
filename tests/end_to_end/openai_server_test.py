"""Starts a server on several ranks and runs openai_client_test.py against it with this Python."""

import argparse
import importlib.util
import pathlib
import subprocess
import sys

import skipper_process

SKIPPED = 77


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    arguments = parser.parse_args()
    if importlib.util.find_spec("openai") is None:
        print("skipped: this Python has no package openai (see openai_requirements.txt; scripts/test installs it)")
        sys.exit(SKIPPED)
    client = pathlib.Path(__file__).with_name("openai_client_test.py")
    with skipper_process.Server(arguments.binary, ["--model", arguments.model], ranks=arguments.ranks) as server:
        result = subprocess.run([sys.executable, str(client), server.url, arguments.model], timeout=600, check=False)
        status = result.returncode
        if status != 0:
            print(server.log(), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
