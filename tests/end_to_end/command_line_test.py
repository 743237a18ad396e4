"""Bad command lines, files and ports: one line that names the thing, from one rank, and the right exit status."""

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile

import skipper_process

EXIT_ERROR = 1
EXIT_USAGE = 2


class Checker:
    def __init__(self, arguments):
        self.arguments = arguments
        self.failures = []

    def expect(self, name, flags, status, pattern, ranks=0):
        result = skipper_process.run(self.arguments.binary, flags, ranks=ranks, timeout=120)
        lines = [line for line in result.stderr.splitlines() if line.startswith("skipper: error:")]
        if result.returncode != status:
            self.failures.append(f"{name}: exit status {result.returncode}, expected {status}\n{result.stderr}")
        elif len(lines) != 1:
            self.failures.append(f"{name}: {len(lines)} error lines, expected one\n{result.stderr}")
        elif not re.search(pattern, lines[0]):
            self.failures.append(f"{name}: {lines[0]!r} does not match {pattern!r}")
        else:
            print(f"{name}: {lines[0]}")


def copy_model(model, folder, skip=()):
    """The model directory as links, without the files in `skip`."""
    os.makedirs(folder)
    for entry in os.scandir(model):
        if entry.is_file() and entry.name not in skip:
            os.symlink(os.path.abspath(entry.path), os.path.join(folder, entry.name))
    return folder


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)
    return path


def check_usage(check, model):
    check.expect("unknown command", ["serv"], EXIT_USAGE, "unknown command 'serv'.*did you mean 'serve'")
    check.expect("unknown flag", ["serve", "--modle", model], EXIT_USAGE, "--modle.*did you mean '--model'")
    check.expect("foreign flag", ["serve", "--model", model, "--json", "x"], EXIT_USAGE, "--json belongs to 'skipper eval'")
    check.expect("malformed value", ["serve", "--model", model, "--port", "http"], EXIT_USAGE, "--port: 'http'")
    check.expect("negative value", ["serve", "--model", model, "--max_model_len", "-5"], EXIT_USAGE, "-5 is negative")
    check.expect("unknown device", ["serve", "--model", model, "--device", "tpu"], EXIT_USAGE, "--device: 'tpu' is unknown")
    check.expect("port out of range", ["serve", "--model", model, "--port", "70000"], EXIT_USAGE, "70000.*0 to 65535")
    check.expect("missing value", ["serve", "--model"], EXIT_USAGE, "--model needs a value")
    check.expect("missing model", ["serve"], EXIT_USAGE, "--model is missing")
    check.expect("stray argument", ["serve", "--model", model, "now"], EXIT_USAGE, "unexpected argument 'now'")
    check.expect("level alone", ["serve", "--model", model, "--level", "1"], EXIT_USAGE, "--level 1 needs --operating_point")
    check.expect("one line from four ranks", ["serve", "--modle", "x"], EXIT_USAGE, "--modle", ranks=4)


def check_models(check, model, folder):
    check.expect("missing directory", ["serve", "--model", "/nonexistent"], EXIT_ERROR, "/nonexistent")
    check.expect("missing directory, 2 ranks", ["serve", "--model", "/nonexistent"], EXIT_ERROR, "error: /nonexistent", ranks=2)
    shard = "model-00002-of-00003.safetensors"
    missing = copy_model(model, os.path.join(folder, "missing"), skip=[shard])
    check.expect("missing shard", ["serve", "--model", missing], EXIT_ERROR, shard)
    truncated = copy_model(model, os.path.join(folder, "truncated"), skip=[shard])
    shutil.copy(os.path.join(model, shard), truncated)
    os.truncate(os.path.join(truncated, shard), 1_000_000)
    check.expect("truncated shard", ["serve", "--model", truncated], EXIT_ERROR, shard, ranks=2)
    with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    for name, change, pattern in (
        ("unknown architecture", {"architectures": ["GPT5"], "model_type": "gpt5"}, "gpt5|GPT5"),
        ("foreign weights", {"text_config": {**config["text_config"], "hidden_size": 512}}, r"512"),
        ("unsupported field", {"text_config": {**config["text_config"], "hidden_act": "relu"}}, "hidden_act.*relu"),
    ):
        changed = copy_model(model, os.path.join(folder, name.replace(" ", "_")), skip=["config.json"])
        write_json(os.path.join(changed, "config.json"), {**config, **change})
        check.expect(name, ["serve", "--model", changed], EXIT_ERROR, pattern)
    broken = copy_model(model, os.path.join(folder, "broken"), skip=["config.json"])
    with open(os.path.join(broken, "config.json"), "w", encoding="utf-8") as file:
        file.write('{"model_type": ')
    check.expect("broken JSON", ["serve", "--model", broken], EXIT_ERROR, "config.json: not valid JSON")
    for name in ("tokenizer.json", "preprocessor_config.json"):
        without = copy_model(model, os.path.join(folder, "without_" + name), skip=[name])
        check.expect("without " + name, ["serve", "--model", without], EXIT_ERROR, name)


def check_settings(check, model, folder):
    config = write_json(os.path.join(folder, "config.json"), {"engine": {"max_token_per_step": 3}})
    withheld = write_json(os.path.join(folder, "withheld.json"), {"dispatch": {"payload": "off"}})
    check.expect("payload off", ["serve", "--model", model, "--config", withheld], EXIT_ERROR,
                 "withheld.json: dispatch.payload is off.*only 'skipper eval' takes it", ranks=2)
    check.expect("unknown config key", ["serve", "--model", model, "--config", config], EXIT_ERROR,
                 "engine: max_token_per_step: unknown key; did you mean 'max_tokens_per_step'")
    config = write_json(os.path.join(folder, "config.json"), {"engine": {"max_tokens_per_step": 0}})
    check.expect("config value", ["serve", "--model", model, "--config", config], EXIT_ERROR, "engine.max_tokens_per_step: 0")
    check.expect("missing config", ["serve", "--model", model, "--config", "/nonexistent.json"], EXIT_ERROR, "/nonexistent.json")
    check.expect("context too long", ["serve", "--model", model, "--max_model_len", "1000000"], EXIT_ERROR, "1000000.*4096")
    point = {"version": 1, "alpha": {"text": [1.0], "vision": [1.0]}, "tau": {"text": 0.1, "vision": 0.1}}
    path = write_json(os.path.join(folder, "point.json"), point)
    check.expect("foreign point", ["serve", "--model", model, "--operating_point", path], EXIT_ERROR, "point.json.*alpha")
    alpha = [1 / 6] * 6
    point = {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": 0.1, "vision": 0.1}}
    path = write_json(path, point)
    check.expect("missing level", ["serve", "--model", model, "--operating_point", path, "--level", "7"], EXIT_ERROR,
                 "level 7 does not exist")
    path = write_json(path, {**point, "taus": 1})
    check.expect("unknown key", ["serve", "--model", model, "--operating_point", path], EXIT_ERROR, "taus.*did you mean 'tau'")
    path = write_json(path, {**point, "model_fingerprint": "feedfeed"})
    check.expect("other model's point", ["serve", "--model", model, "--operating_point", path], EXIT_ERROR, "feedfeed")
    check.expect("missing data", ["eval", "--model", model, "--data", "/nonexistent"], EXIT_ERROR, "/nonexistent", ranks=2)
    check.expect("empty data", ["eval", "--model", model, "--data", folder], EXIT_ERROR, "nothing to evaluate|no \\*.txt")


def check_evaluation(check, model, folder):
    data = os.path.join(folder, "data")
    os.mkdir(data)
    with open(os.path.join(data, "text.txt"), "w", encoding="utf-8") as file:
        file.write("The sea was calm. " * 2000)
    flags = ["eval", "--model", model, "--data", data]
    check.expect("window over the context", [*flags, "--max_model_len", "128"], EXIT_ERROR, "512 tokens.*max_model_len is 128")
    check.expect("unwritable json", [*flags, "--json", "/nonexistent/x.json"], EXIT_ERROR, "x.json: cannot be written")
    # Good pictures are already under way when the broken one is met.
    pictures = sorted(os.scandir(os.path.join(model, "calibration/images")), key=lambda entry: entry.name)[:6]
    for entry in pictures:
        shutil.copy(entry.path, data)
    with open(os.path.join(data, pictures[-1].name), "wb") as file:
        file.write(b"no picture")
    with open(os.path.join(data, "vqa.jsonl"), "w", encoding="utf-8") as file:
        for entry in pictures:
            file.write(json.dumps({"task": "t", "image": entry.name, "question": "What?", "answer": "a"}) + "\n")
    os.remove(os.path.join(data, "text.txt"))
    for ranks in (0, 2):
        check.expect(f"broken picture, ranks={ranks}", flags, EXIT_ERROR, pictures[-1].name, ranks=ranks)
    config = write_json(os.path.join(folder, "small_queue.json"), {"engine": {"queue_capacity": 2}})
    flags = [*flags[:-1], make_chat_data(folder), "--config", config]
    result = skipper_process.run(check.arguments.binary, flags, timeout=120)
    if result.returncode != 0:
        check.failures.append(f"eval with a small queue: status {result.returncode}\n{result.stderr}")


def make_chat_data(folder):
    data = os.path.join(folder, "chat_data")
    os.mkdir(data)
    with open(os.path.join(data, "chat.jsonl"), "w", encoding="utf-8") as file:
        for number in range(9):
            file.write(json.dumps({"task": "t", "question": f"What is {number} + 1?", "answer": str(number + 1)}) + "\n")
    return data


def check_port(check, model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        check.expect("port in use", ["serve", "--model", model, "--port", port], EXIT_ERROR, f"{port}.*in use.*--port")
        check.expect("port in use, 2 ranks", ["serve", "--model", model, "--port", port], EXIT_ERROR, f"{port}.*in use", ranks=2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    check = Checker(arguments)
    with tempfile.TemporaryDirectory() as folder:
        check_usage(check, arguments.model)
        check_models(check, arguments.model, folder)
        os.mkdir(os.path.join(folder, "settings"))
        check_settings(check, arguments.model, os.path.join(folder, "settings"))
        check_evaluation(check, arguments.model, os.path.join(folder, "settings"))
        check_port(check, arguments.model)
    sys.exit("\n".join(check.failures) if check.failures else 0)


if __name__ == "__main__":
    main()
