#!/usr/bin/env python3
"""Computes the hashes of a plan's experts again, from the checkpoint alone, and compares.

    tools/check_plan_hashes.py --model models/demo --plan plan.json [--sample 64]

A second witness for `skipper plan --hashes true` and `skipper serve --plan`: rounding, packing and hashing are written here from
their definitions (kernels/group_quantizer.h, kernels/packed_matrix.h, model/expert_hash.h), and share no code with the server.
Reads checkpoints in BF16 or F32 with fused or separate experts, and those of `skipper quantize`. Prints how many copies were
compared and exits with 1 if any hash differs or is missing. Needs numpy.
"""
import argparse
import hashlib
import json
import pathlib
import re
import sys

import numpy as np

PANEL_ROWS = 16
LANES = 16
HASH_DIGITS = 16
F32 = np.float32
BITS = {"int8": 8, "int4": 4, "int4a": 4, "int3a": 3, "int2a": 2}
INT4_DIVISORS = (-8, -7, -7.25, -7.5, -7.75, -8.25, -8.5, -8.75, -9, -9.25, -9.5, -9.75, -10)
SHRINKS = (1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)


class Checkpoint:
    """Tensors of *.safetensors files by name, read where they lie."""

    def __init__(self, folder):
        self.tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            for name, entry in header.items():
                if name != "__metadata__":
                    self.tensors[name] = (path, 8 + size, entry)

    def __contains__(self, name):
        return name in self.tensors

    def bytes(self, name):
        path, start, entry = self.tensors[name]
        begin, end = entry["data_offsets"]
        return np.fromfile(path, np.uint8, end - begin, offset=start + begin)

    def read(self, name):
        """As float32."""
        entry = self.tensors[name][2]
        raw = self.bytes(name)
        if entry["dtype"] == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(F32)
        elif entry["dtype"] in ("F32", "F16"):
            values = raw.view({"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(F32)
        else:
            sys.exit(f"{name}: element type {entry['dtype']} is not read here")
        return values.reshape(entry["shape"])


def bf16_bits(values):
    """Rounded to nearest, ties to even; of finite numbers."""
    bits = np.ascontiguousarray(values, F32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def rounded_to_bf16(values):
    return (bf16_bits(values).astype(np.uint32) << 16).view(F32)


def steps_of(groups, scale, zero, num_codes):
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = groups / scale[:, None]
    low, high = (-zero).astype(F32)[:, None], (num_codes - 1 - zero).astype(F32)[:, None]
    return np.rint(np.minimum(np.maximum(exact, low), high)).astype(F32)


def squared_errors(groups, scale, zero, num_codes):
    """In float32 and in the order in which the server adds: sixteen lanes, which are then folded."""
    difference = groups - steps_of(groups, scale, zero, num_codes) * scale[:, None]
    squares = (difference * difference).reshape(len(groups), -1, LANES)
    lanes = np.zeros((len(groups), LANES), F32)
    for part in range(squares.shape[1]):
        lanes = lanes + squares[:, part]
    eight = lanes[:, :8] + lanes[:, 8:]
    four = eight[:, :4] + eight[:, 4:]
    return (four[:, 0] + four[:, 2]) + (four[:, 1] + four[:, 3])


class Best:
    """The candidate of least error of each group; of equal ones the first."""

    def __init__(self, groups, num_codes):
        self.groups, self.num_codes = groups, num_codes
        self.scale = np.zeros(len(groups), F32)
        self.zero = np.zeros(len(groups), np.int64)
        self.error = np.full(len(groups), np.inf, F32)

    def consider(self, scale, zero):
        error = squared_errors(self.groups, scale, zero, self.num_codes)
        better = (scale != 0) & ((self.scale == 0) | (error < self.error))
        self.scale = np.where(better, scale, self.scale)
        self.zero = np.where(better, zero, self.zero)
        self.error = np.where(better, error, self.error)


def best_candidates(groups, kind):
    num_codes = 1 << BITS[kind]
    lowest = np.minimum(groups.min(axis=1), F32(0))
    highest = np.maximum(groups.max(axis=1), F32(0))
    middle = np.full(len(groups), num_codes // 2, np.int64)
    if kind == "int8":
        return rounded_to_bf16(np.maximum(-lowest, highest) / F32(127)), middle
    best = Best(groups, num_codes)
    if kind == "int4":
        extreme = np.where(-lowest > highest, lowest, highest)
        for divisor in INT4_DIVISORS:
            best.consider(rounded_to_bf16(extreme / F32(divisor)), middle)
        return best.scale, middle
    num_steps = F32(num_codes - 1)
    widest = highest / num_steps - lowest / num_steps
    for shrink in SHRINKS:
        scale = rounded_to_bf16(widest * F32(shrink))
        with np.errstate(divide="ignore", invalid="ignore"):
            exact_zero = np.where(scale == 0, F32(0), np.minimum(-lowest * F32(shrink) / scale, num_steps))
        zero = (exact_zero + F32(0.5)).astype(np.int64)
        for shift in (0, -1, 1) if num_codes == 4 else (0,):
            best.consider(scale, np.clip(zero + shift, 0, num_codes - 1))
    return best.scale, best.zero


def quantize(rows, kind, group_size):
    """rows [N, K] → codes [N, K], scales [N, G] as bits of bf16, zero points [N, G]."""
    num_rows, num_columns = rows.shape
    num_groups = -(-num_columns // group_size)
    padded = np.zeros((num_rows, num_groups * group_size), F32)
    padded[:, :num_columns] = rows
    groups = padded.reshape(-1, group_size)
    scale, zero = best_candidates(groups, kind)
    steps = np.where(scale[:, None] == 0, F32(0), steps_of(groups, scale, zero, 1 << BITS[kind]))
    codes = (steps.astype(np.int64) + zero[:, None]).astype(np.uint8).reshape(num_rows, -1)[:, :num_columns]
    return codes, bf16_bits(scale).reshape(num_rows, -1), zero.astype(np.uint8).reshape(num_rows, -1)


def padded_to(rows, multiple):
    missing = -rows.shape[1] % multiple
    return np.pad(rows, ((0, 0), (0, missing))) if missing else rows


def code_bytes(codes, kind):
    """Codes of a panel [16, K] → bytes, as the table in kernels/packed_matrix.h lays them out."""
    chunk = {8: 4, 4: 8, 3: 32, 2: 16}[BITS[kind]]
    words = padded_to(codes, chunk).reshape(PANEL_ROWS, -1, chunk // 4, 4)  # [row, chunk, word, k]

    def joined(first, last, bits, mask, shift):
        vector = np.zeros(words[:, :, 0].shape, np.uint8)
        for word in range(first, last):
            vector |= (words[:, :, word] >> shift & mask) << np.uint8(bits * (word - first))
        return vector

    if BITS[kind] == 3:
        vectors = [joined(0, 4, 2, 3, 0), joined(4, 8, 2, 3, 0), joined(0, 8, 1, 1, 2)]
    else:
        vectors = [joined(0, chunk // 4, BITS[kind], (1 << BITS[kind]) - 1, 0)]
    return np.stack(vectors, axis=1).transpose(2, 1, 0, 3).tobytes()  # [chunk, vector, row, k]


def panels_of(rows):
    missing = -len(rows) % PANEL_ROWS
    padded = np.pad(rows, ((0, missing), (0, 0)))
    return padded.reshape(-1, PANEL_ROWS, rows.shape[1])


class Packed:
    """The three byte strings of a matrix."""

    def __init__(self):
        self.codes, self.scales, self.zeros = [], [], []

    def add(self, digest):
        for part in (self.codes, self.scales, self.zeros):
            digest.update(b"".join(part))


def pack(parts, format_name):
    """Matrices of equal shape with their panels in turn."""
    packed = Packed()
    if format_name == "bf16":
        stacks = [panels_of(padded_to(bf16_bits(part), 2)) for part in parts]
        for panels in zip(*stacks):
            for panel in panels:
                packed.codes.append(panel.reshape(PANEL_ROWS, -1, 2).transpose(1, 0, 2).tobytes())
        return packed
    kind, size = re.fullmatch(r"(int\d+a?)-g(\d+)", format_name).groups()
    stacks = [[panels_of(array) for array in quantize(part, kind, int(size))] for part in parts]
    for panel in range(len(stacks[0][0])):
        for codes, scales, zeros in stacks:
            packed.codes.append(code_bytes(codes[panel], kind))
            packed.scales.append(scales[panel].T.tobytes())
            if kind.endswith("a"):
                packed.zeros.append(zeros[panel].T.tobytes())
    return packed


def stored(checkpoint, name):
    """A matrix of `skipper quantize`: its bytes are those of the memory."""
    packed = Packed()
    for part, target in (("codes", packed.codes), ("scales", packed.scales), ("zeros", packed.zeros)):
        if f"{name}.{part}" in checkpoint:
            target.append(checkpoint.bytes(f"{name}.{part}").tobytes())
    return packed


class Experts:
    """The matrices of one expert, whatever the layout of the checkpoint."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.prefixes = {}  # of experts, by decoder layer
        for name in checkpoint.tensors:
            found = re.match(r"(.*layers\.(\d+)\.mlp\.experts\.)", name)
            if found:
                self.prefixes[int(found[2])] = found[1]
        self.layers = sorted(self.prefixes)  # decoder layers with experts, in MoE order
        self.fused = {}

    def matrices(self, moe_layer, expert, format_name):
        prefix = self.prefixes[self.layers[moe_layer]]
        own = f"{prefix}{expert}."
        if f"{own}gate_up.codes" in self.checkpoint:
            return stored(self.checkpoint, own + "gate_up"), stored(self.checkpoint, own + "down")
        if prefix + "gate_up_proj" in self.checkpoint:
            if moe_layer not in self.fused:
                self.fused = {moe_layer: [self.checkpoint.read(prefix + name) for name in ("gate_up_proj", "down_proj")]}
            gate_up, down = (tensor[expert].T for tensor in self.fused[moe_layer])
            width = len(gate_up) // 2
            return pack([gate_up[:width], gate_up[width:]], format_name), pack([down], format_name)
        gate, up, down = (self.checkpoint.read(f"{own}{name}.weight") for name in ("gate_proj", "up_proj", "down_proj"))
        return pack([gate, up], format_name), pack([down], format_name)

    def hash(self, copy):
        digest = hashlib.sha256()
        for matrix in self.matrices(copy["layer"], copy["expert"], copy["format"]):
            matrix.add(digest)
        return digest.hexdigest()[:HASH_DIGITS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--plan", required=True, type=pathlib.Path)
    parser.add_argument("--sample", type=int, default=0, help="look at so many copies, spread evenly (default: all)")
    arguments = parser.parse_args()
    copies = json.loads(arguments.plan.read_text(encoding="utf-8"))["copies"]
    if arguments.sample and arguments.sample < len(copies):
        copies = [copies[i * len(copies) // arguments.sample] for i in range(arguments.sample)]
    experts = Experts(Checkpoint(arguments.model))
    wrong = 0
    for copy in sorted(copies, key=lambda one: (one["layer"], one["expert"])):
        found = experts.hash(copy)
        if found == copy["hash"]:
            continue
        wrong += 1
        print(f"MoE layer {copy['layer']}, expert {copy['expert']}, {copy['format']}, rank {copy['rank']}: the plan says "
              f"'{copy['hash']}', the checkpoint gives '{found}'")
    print(f"{len(copies)} copies compared, {wrong} of them differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
