"""How compare_peers runs each program and reads its figures: tokens/s by case, a case being ("prefill", 512) or ("decode", 4).

Every class has a name, `missing(format)`, the reason why it cannot run a format or None, and `run(format)`, which returns
{case: [samples]}. Standard library only.
"""

import dataclasses
import glob
import json
import os
import pathlib
import subprocess
import tempfile

FORMATS = {"bf16": "bf16", "int8": "q8_0", "int4": "q4_0"}  # ours, and the GGUF type beside it
RUN_TIMEOUT = 1800  # s
GGUF_SEQUENCE_TOKENS = 256  # llama.cpp rounds every sequence's room in the cache up to this


class RunFailed(Exception):
    """A program that ended badly, as one line."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What every program measures."""

    threads: int
    prefill: list
    decode: list
    context: int
    steps: int
    repeat: int

    def comma(self, phase):
        return ",".join(str(size) for size in getattr(self, phase))


def run_program(command):
    """Standard output of a program that succeeds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False)
    except OSError as error:
        raise RunFailed(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"{command[0]}: not done after {RUN_TIMEOUT} s") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise RunFailed(f"{command[0]} ended with status {done.returncode}: {lines[-1]}")
    return done.stdout


def gguf_of(folder, file_type):
    """The one file of a type in the folder, or None."""
    found = glob.glob(os.path.join(glob.escape(folder), f"*{file_type}.gguf"))
    return found[0] if len(found) == 1 else None


class LlamaCpp:
    """llama-bench, and llama-batched-bench for several streams, which gives each stream random tokens of its own."""

    name = "llama.cpp"
    bench_flags = ()

    def __init__(self, binaries, ggufs, workload):
        self.binaries, self.ggufs, self.workload = binaries, ggufs, workload

    def missing(self, weight_format):
        if not self.binaries:
            return "no folder given"
        for program in self.programs():
            if not os.access(os.path.join(self.binaries, program), os.X_OK):
                return f"{os.path.join(self.binaries, program)} is not there"
        if not self.ggufs:
            return "--gguf is not given"
        file_type = FORMATS[weight_format]
        return None if gguf_of(self.ggufs, file_type) else f"{self.ggufs} does not hold exactly one *{file_type}.gguf"

    def programs(self):
        return ("llama-bench", "llama-batched-bench")

    def run(self, weight_format):
        gguf = gguf_of(self.ggufs, FORMATS[weight_format])
        return {**self.run_alone(gguf), **self.run_batched(gguf)}

    def run_alone(self, gguf):
        work = self.workload
        prompts = ["-p", work.comma("prefill")] if work.prefill else ["-p", "0"]
        generated = ["-n", str(work.steps if 1 in work.decode else 0)]
        tests = json.loads(run_program([os.path.join(self.binaries, "llama-bench"), "-m", gguf, *prompts, *generated, "-t",
                                        str(work.threads), "-r", str(work.repeat), "-o", "json", *self.bench_flags]))
        return {("prefill", test["n_prompt"]) if test["n_prompt"] else ("decode", 1): test["samples_ts"] for test in tests}

    def run_batched(self, gguf):
        work, threads = self.workload, str(self.workload.threads)
        streams = [size for size in work.decode if size > 1]
        if not streams:
            return {}
        room = -(-(work.context + work.steps) // GGUF_SEQUENCE_TOKENS) * GGUF_SEQUENCE_TOKENS * max(streams)
        command = [os.path.join(self.binaries, "llama-batched-bench"), "-m", gguf, "-c", str(room), "-b", "2048", "-ub", "512",
                   "-npp", str(work.context), "-ntg", str(work.steps), "-npl", ",".join(map(str, streams)), "-t", threads,
                   "-tb", threads, "--output-format", "jsonl"]
        samples = {}
        for _ in range(work.repeat):
            for line in run_program(command).splitlines():
                if line.startswith("{"):
                    test = json.loads(line)
                    samples.setdefault(("decode", test["pl"]), []).append(test["speed_tg"])
        return samples


class IkLlamaCpp(LlamaCpp):
    """llama-bench alone: this project's batched bench feeds token 0 to every stream, so all streams share their experts."""

    name = "ik_llama.cpp"
    bench_flags = ("-rtr", "1", "-fmoe", "1")  # repack at load, gate and up fused: its fast path on CPUs

    def programs(self):
        return ("llama-bench",)

    def run_batched(self, gguf):
        return {}


class Transformers:
    """bench/transformers_perf.py: BF16, one stream."""

    name = "transformers"

    def __init__(self, python, model, workload):
        self.python, self.model, self.workload = python, model, workload

    def missing(self, weight_format):
        if weight_format != "bf16":
            return "runs BF16 only here"
        if not self.python:
            return "--transformers-python is not given"
        check = subprocess.run([self.python, "-c", "import torch, transformers"], capture_output=True, check=False) \
            if os.access(self.python, os.X_OK) else None
        return None if check and check.returncode == 0 else f"{self.python} has no torch and transformers"

    def run(self, weight_format):
        work = self.workload
        script = pathlib.Path(__file__).resolve().with_name("transformers_perf.py")
        output = run_program([self.python, str(script), "--model", self.model, "--threads", str(work.threads), "--prefill",
                              work.comma("prefill"), "--context", str(work.context), "--steps", str(work.steps), "--repeat",
                              str(work.repeat)])
        return samples_of(json.loads(output.splitlines()[-1]), lambda samples: samples)


class Skipper:
    """Our model_perf. Keeps the report of its last run for the experts touched and the read rate."""

    name = "skipper"

    def __init__(self, binary, models, workload, formats):
        """`models`: a checkpoint by format; where there is only the BF16 one, it is rounded at load to formats[format]."""
        self.binary, self.models, self.workload, self.formats = binary, models, workload, formats
        self.reports = {}

    def missing(self, weight_format):
        if not os.access(self.binary, os.X_OK):
            return f"{self.binary} is not there; build it or give --model-perf"
        if not self.models.get(weight_format) and "--experts" not in run_program([self.binary, "--help"]):
            return f"{self.binary} has no --experts; give --{weight_format}-model, made by skipper quantize"
        return None

    def run(self, weight_format):
        work = self.workload
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "report.json")
            model = self.models.get(weight_format) or self.models["bf16"]
            flags = ["--model", model, "--threads", str(work.threads), "--prefill", work.comma("prefill"), "--decode",
                     work.comma("decode"), "--context", str(work.context), "--steps", str(work.steps), "--repeat",
                     str(work.repeat), "--json", path]
            if not self.models.get(weight_format):
                flags += ["--experts", self.formats[weight_format], "--dense", self.formats[weight_format]]
            run_program([self.binary, *flags])
            with open(path, encoding="utf-8") as file:
                self.reports[weight_format] = json.load(file)
        return samples_of(self.reports[weight_format]["details"], lambda case: case["tokens_per_second"]["samples"])


def samples_of(phases, samples):
    """{"prefill": {"512": x}} → {("prefill", 512): samples(x)}"""
    return {(phase, int(size)): samples(case) for phase, cases in phases.items() for size, case in cases.items()}
