"""Who gets which format: planned, uniform, random, by frequency, and the steps of the knob, all within the same bytes."""

import json
import os
import random
import subprocess

AVERAGES = (3, 4, 6)  # bits of an expert weight, scales and zero points included
SEEDS = 20
UNROUNDED = "bf16"
KNOB_FORMAT = "int4a-g32"
KNOB_STEPS = 12
SCALE_BITS, ZERO_BITS = 16, 8


class ExpertShape:
    """What an expert takes in memory: three matrices, two of width x hidden, one of hidden x width."""

    def __init__(self, model):
        with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config = config.get("text_config", config)
        hidden, width = config["hidden_size"], config["moe_intermediate_size"]
        self.num_weights = 3 * hidden * width
        self._rows = ((2 * width, hidden), (hidden, width))

    def bytes(self, name):
        """With a scale, and perhaps a zero point, for each group; the last group of a row may be short."""
        if name == UNROUNDED:
            return 2 * self.num_weights
        code, group = name.removeprefix("int").split("-g")
        num_groups = sum(rows * -(-columns // int(group)) for rows, columns in self._rows)
        side_bits = SCALE_BITS + ZERO_BITS * code.endswith("a")
        return (int(code.rstrip("a")) * self.num_weights + side_bits * num_groups) // 8

    def bits(self, name):
        return 8 * self.bytes(name) / self.num_weights

    def total_bytes(self, formats):
        return sum(self.bytes(name) for layer in formats for name in layer)

    def mean_bits(self, formats):
        return 8 * self.total_bytes(formats) / (self.num_weights * sum(map(len, formats)))


class Profile:
    """What `skipper profile` measured."""

    def __init__(self, path, shape):
        self.path, self.shape = path, shape
        with open(path, encoding="utf-8") as file:
            self._json = json.load(file)
        self.num_layers, self.num_experts = self._json["num_moe_layers"], self._json["num_experts"]
        self.formats = sorted(self._json["layers"][0]["error"], key=shape.bits)
        self.r_squared = self._json.get("additive_fit", {}).get("r_squared")

    def experts(self):
        return [(layer, expert) for layer in range(self.num_layers) for expert in range(self.num_experts)]

    def use(self, expert):
        """Share of all tokens that run on it."""
        layer, index = expert
        shares, uses = self._json["token_share"], self._json["layers"][layer]["use"]
        return sum(share * uses[name][phase][index] for name, phases in shares.items() if name in uses
                   for phase, share in phases.items() if phase in uses[name])

    def loss(self, expert, name):
        layer, index = expert
        return self.use(expert) * self._json["layers"][layer]["kappa"] * self._json["layers"][layer]["error"][name][index]

    def neighbours(self, average):
        """The formats next below and above that many bits."""
        all_formats = [*self.formats, UNROUNDED]
        above = next(i for i, name in enumerate(all_formats) if self.shape.bits(name) > average)
        if above == 0:
            raise SystemExit(f"{self.path}: has no format of fewer than {average} bits; "
                             "measure one with 'skipper profile --formats'")
        return all_formats[above - 1], all_formats[above]


class Maker:
    """All assignments of one average take at most the same bytes, and differ from that by less than one expert."""

    def __init__(self, binary, model, profile, folder, is_verified):
        self._binary, self._model, self._profile, self._folder = binary, model, profile, folder
        self._is_verified = is_verified
        self._probe = None

    def uniform(self, name):
        return [[name] * self._profile.num_experts for _ in range(self._profile.num_layers)]

    def two_formats(self, average, best_first):
        """As many of the experts as the bytes allow, in this order, get the upper neighbour of the average."""
        low, high = self._profile.neighbours(average)
        bits = self._profile.shape.bits
        count = int(len(best_first) * (average - bits(low)) / (bits(high) - bits(low)) + 1e-9)
        formats = self.uniform(low)
        for layer, expert in best_first[:count]:
            formats[layer][expert] = high
        return formats

    def by_layers(self, average):
        return self.two_formats(average, self._profile.experts())

    def by_frequency(self, average):
        return self.two_formats(average, sorted(self._profile.experts(), key=self._profile.use, reverse=True))

    def by_chance(self, average, seed):
        experts = self._profile.experts()
        random.Random(seed).shuffle(experts)
        return self.two_formats(average, experts)

    def knob(self):
        """Step by step more experts at four bits, those first that it costs least; the others unrounded."""
        experts = sorted(self._profile.experts(), key=lambda expert: self._profile.loss(expert, KNOB_FORMAT))
        for step in range(KNOB_STEPS + 1):
            count = len(experts) * step // KNOB_STEPS
            formats = self.uniform(UNROUNDED)
            for layer, expert in experts[:count]:
                formats[layer][expert] = KNOB_FORMAT
            yield count, formats

    def planned(self, average):
        """What `skipper plan` makes of a memory in which experts have this average."""
        path = os.path.join(self._folder, f"plan_{average:.4f}{'_verified' * self._is_verified}.json")
        if not os.path.exists(path):
            shape = self._profile.shape
            room = int(average * shape.num_weights * len(self._profile.experts()) / 8 + 1e-6)
            self._run_plan(self._fixed_bytes() + room, path, self._is_verified)
        return self._read(path)[0]

    def _fixed_bytes(self):
        """Of everything but the experts, as any plan says."""
        path = os.path.join(self._folder, "plan_for_sizes.json")
        if not os.path.exists(path):
            self._run_plan("1G", path, False)
        _, host = self._read(path)
        return sum(value for name, value in host.items() if name not in ("budget", "experts"))

    def _read(self, path):
        """(formats, memory of the host)"""
        with open(path, encoding="utf-8") as file:
            plan = json.load(file)
        formats = self.uniform(UNROUNDED)
        for copy in plan["copies"]:
            formats[copy["layer"]][copy["expert"]] = copy["format"]
        host = plan["ranks"][0]["host"]
        if sum(host["experts"].values()) != self._profile.shape.total_bytes(formats):
            raise SystemExit(f"{path}: its experts take other bytes than {self._profile.shape.total_bytes(formats)}; report this")
        return formats, host

    def _run_plan(self, memory, path, is_verified):
        command = [self._binary, "plan", "--model", self._model, "--profile", self._profile.path, "--memory", str(memory),
                   "--out", path]
        if is_verified:
            command += ["--verify", os.path.join(self._model, "calibration")]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nended with status {result.returncode}:\n{result.stderr}")
