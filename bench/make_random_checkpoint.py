#!/usr/bin/env python3
"""Writes a qwen3_moe checkpoint of random weights and any shape, for benchmarks: speed depends on shapes, not on values.

    bench/make_random_checkpoint.py --out bench-model                   1.76 billion weights, 3.5 GB: the default shape
    bench/make_random_checkpoint.py --out tiny --hidden 64 --layers 2 --experts 8 --top-k 2 --expert-width 32 \\
        --heads 4 --kv-heads 2 --head-dim 16 --vocab 300

The directory has the hub's layout: config.json, BF16 safetensors in shards with one tensor per expert, and a byte-level BPE
tokenizer of exactly the asked vocabulary. Weights are normal with variance 1 / inputs, norms lie around 1; the router and the
head are larger, so that the choice of experts and tokens is no coin toss; embeddings have variance 1 and attention adds half
as much, or all tokens of a long prompt would grow alike and meet in a few experts. The same flags give the same bytes everywhere.
Tensors are written one after the other in pieces, so memory stays small. Standard library only.
"""

import json
import os
import random
import statistics
import struct
import sys
import time
import zlib

import random_tokenizer
from command_line import OneLineParser

SHARD_BYTES = 1 << 30
PIECE_WEIGHTS = 1 << 20
JITTER_BYTE = 7  # the last three bits of a BF16's mantissa
ROUTER_GAIN = 1.5
ATTENTION_GAIN = 0.5
HEAD_GAIN = 3.0
NORM_SPREAD = 0.1
BF16_BYTES = 2


def bf16_bits(value):
    """The upper half of a float32, cut off."""
    return struct.unpack("<I", struct.pack("<f", value))[0] >> 16


class NormalBytes:
    """Draws BF16 values of a normal distribution as bytes.

    One random byte chooses one of 256 equally likely values, a second one varies the end of its mantissa: two table look-ups
    over whole byte strings, thousands of times faster than a draw per weight.
    """

    def __init__(self, mean, deviation):
        normal = statistics.NormalDist()
        bits = [bf16_bits(mean + deviation * normal.inv_cdf((level + 0.5) / 256)) for level in range(256)]
        self.low = bytes(word & 0xFF for word in bits)
        self.high = bytes(word >> 8 for word in bits)

    def draw(self, generator, count):
        levels = generator.randbytes(count)
        mask = int.from_bytes(bytes([JITTER_BYTE]) * count, "little")
        jitter = int.from_bytes(generator.randbytes(count), "little") & mask
        low = int.from_bytes(levels.translate(self.low), "little") ^ jitter
        values = bytearray(BF16_BYTES * count)
        values[0::2] = low.to_bytes(count, "little")
        values[1::2] = levels.translate(self.high)
        return values


class TensorPlan:
    """Name, shape and distribution of one tensor."""

    def __init__(self, name, shape, gain=1.0):
        self.name = name
        self.shape = shape
        is_norm = len(shape) == 1
        self.mean, self.deviation = (1.0, NORM_SPREAD) if is_norm else (0.0, gain / shape[-1] ** 0.5)

    def num_weights(self):
        count = 1
        for size in self.shape:
            count *= size
        return count

    def num_bytes(self):
        return BF16_BYTES * self.num_weights()

    def write(self, file, seed):
        # Seeded by the name, so that a tensor does not depend on those before it.
        generator = random.Random(seed * (1 << 32) + zlib.crc32(self.name.encode()))
        values = NormalBytes(self.mean, self.deviation)
        remaining = self.num_weights()
        while remaining > 0:
            count = min(remaining, PIECE_WEIGHTS)
            file.write(values.draw(generator, count))
            remaining -= count


def plan_layer(arguments, layer):
    prefix = f"model.layers.{layer}."
    hidden, head_dim, width = arguments.hidden, arguments.head_dim, arguments.expert_width
    yield TensorPlan(prefix + "input_layernorm.weight", [hidden])
    yield TensorPlan(prefix + "self_attn.q_proj.weight", [arguments.heads * head_dim, hidden])
    yield TensorPlan(prefix + "self_attn.k_proj.weight", [arguments.kv_heads * head_dim, hidden])
    yield TensorPlan(prefix + "self_attn.v_proj.weight", [arguments.kv_heads * head_dim, hidden])
    yield TensorPlan(prefix + "self_attn.o_proj.weight", [hidden, arguments.heads * head_dim], ATTENTION_GAIN)
    yield TensorPlan(prefix + "self_attn.q_norm.weight", [head_dim])
    yield TensorPlan(prefix + "self_attn.k_norm.weight", [head_dim])
    yield TensorPlan(prefix + "post_attention_layernorm.weight", [hidden])
    yield TensorPlan(prefix + "mlp.gate.weight", [arguments.experts, hidden], ROUTER_GAIN)
    for expert in range(arguments.experts):
        yield TensorPlan(f"{prefix}mlp.experts.{expert}.gate_proj.weight", [width, hidden])
        yield TensorPlan(f"{prefix}mlp.experts.{expert}.up_proj.weight", [width, hidden])
        yield TensorPlan(f"{prefix}mlp.experts.{expert}.down_proj.weight", [hidden, width])


def plan_tensors(arguments):
    yield TensorPlan("model.embed_tokens.weight", [arguments.vocab, arguments.hidden], arguments.hidden ** 0.5)
    for layer in range(arguments.layers):
        yield from plan_layer(arguments, layer)
    yield TensorPlan("model.norm.weight", [arguments.hidden])
    yield TensorPlan("lm_head.weight", [arguments.vocab, arguments.hidden], HEAD_GAIN)


def split_into_shards(plans):
    shards, size = [[]], 0
    for plan in plans:
        if size + plan.num_bytes() > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(plan)
        size += plan.num_bytes()
    return shards


class ProgressLine:
    """How much of the checkpoint is written: one line that is rewritten on a terminal, a line per shard in a log."""

    def __init__(self, total_bytes):
        self.total = total_bytes
        self.done = 0
        self.start = time.monotonic()
        self.is_terminal = sys.stderr.isatty()

    def add(self, num_bytes):
        self.done += num_bytes
        if self.is_terminal:
            print("\r" + self.text(), end="", file=sys.stderr, flush=True)

    def end_of_shard(self):
        print("" if self.is_terminal else self.text(), file=sys.stderr, flush=True)

    def text(self):
        seconds = time.monotonic() - self.start
        rate = self.done / max(seconds, 1e-9) / 1e6
        return f"wrote {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {rate:.0f} MB/s"


def header_of(shard):
    """The safetensors header: eight bytes of length, then JSON padded so that the data begins at a multiple of eight."""
    entries, offset = {"__metadata__": {"format": "pt"}}, 0
    for plan in shard:
        end = offset + plan.num_bytes()
        entries[plan.name] = {"dtype": "BF16", "shape": plan.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_weights(arguments):
    shards = split_into_shards(plan_tensors(arguments))
    total = sum(plan.num_bytes() for shard in shards for plan in shard)
    progress, places = ProgressLine(total), {}
    for index, shard in enumerate(shards, 1):
        name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        with open(os.path.join(arguments.out, name), "wb") as file:
            file.write(header_of(shard))
            for plan in shard:
                plan.write(file, arguments.seed)
                places[plan.name] = name
                progress.add(plan.num_bytes())
        progress.end_of_shard()
    write_json(arguments.out, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def config_of(arguments):
    end = random_tokenizer.special_ids(arguments.vocab)
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "torch_dtype": "bfloat16",
        "vocab_size": arguments.vocab,
        "hidden_size": arguments.hidden,
        "intermediate_size": arguments.expert_width * arguments.top_k,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": arguments.heads,
        "num_key_value_heads": arguments.kv_heads,
        "head_dim": arguments.head_dim,
        "num_experts": arguments.experts,
        "num_experts_per_tok": arguments.top_k,
        "moe_intermediate_size": arguments.expert_width,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "attention_bias": False,
        "max_position_embeddings": arguments.max_positions,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "bos_token_id": end["<|endoftext|>"],
        "eos_token_id": end["<|im_end|>"],
        "pad_token_id": end["<|endoftext|>"],
    }


def write_json(directory, name, content):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def parse_arguments():
    parser = OneLineParser(__doc__)
    parser.add_argument("--out", required=True, help="directory to write; made if absent, refused if not empty")
    sizes = {"hidden": (1024, "hidden size"), "layers": (16, "decoder layers"), "experts": (64, "experts of a layer"),
             "top-k": (8, "experts of a token"), "expert-width": (512, "intermediate size of an expert"),
             "heads": (16, "query heads"), "kv-heads": (4, "key and value heads"), "head-dim": (128, "width of a head"),
             "vocab": (32768, "tokens of the vocabulary"), "max-positions": (40960, "longest sequence")}
    for name, (default, meaning) in sizes.items():
        parser.add_argument("--" + name, type=int, default=default, help=f"{meaning} (default {default})")
    parser.add_argument("--seed", type=int, default=1, help="other seeds give other weights (default 1)")
    arguments = parser.parse_args()
    for name in sizes:
        if getattr(arguments, name.replace("-", "_")) < 1:
            parser.error(f"--{name} must be at least 1")
    check_shape(parser, arguments)
    return arguments


def check_shape(parser, arguments):
    if arguments.seed < 0:
        parser.error(f"--seed {arguments.seed} is negative")
    if arguments.top_k > arguments.experts:
        parser.error(f"--top-k {arguments.top_k} is more than --experts {arguments.experts}")
    if arguments.heads % arguments.kv_heads != 0:
        parser.error(f"--kv-heads {arguments.kv_heads} does not divide --heads {arguments.heads}")
    if arguments.head_dim % 2 != 0:
        parser.error(f"--head-dim {arguments.head_dim} is odd; rotary positions need pairs")
    if not random_tokenizer.SMALLEST_VOCABULARY <= arguments.vocab <= random_tokenizer.LARGEST_VOCABULARY:
        parser.error(f"--vocab {arguments.vocab} is not within {random_tokenizer.SMALLEST_VOCABULARY} to "
                     f"{random_tokenizer.LARGEST_VOCABULARY}")
    if os.path.isdir(arguments.out) and os.listdir(arguments.out):
        parser.error(f"--out {arguments.out} is not empty; name a new directory")


def main():
    arguments = parse_arguments()
    try:
        os.makedirs(arguments.out, exist_ok=True)
        write_json(arguments.out, "config.json", config_of(arguments))
        end = random_tokenizer.special_ids(arguments.vocab)
        write_json(arguments.out, "generation_config.json", {"do_sample": False, "eos_token_id": list(end.values())})
        random_tokenizer.write(arguments.out, arguments.vocab, arguments.max_positions)
        write_weights(arguments)
    except OSError as error:
        sys.exit(f"make_random_checkpoint.py: error: {error.filename or arguments.out}: {error.strerror}")


if __name__ == "__main__":
    main()
