"""How much each expert can say, from its weights alone: a second score beside the router's.

The product of the Frobenius norms of gate, up (both with the norm's weights before them) and down, divided by its mean over the
layer: a scorer in the manner of ACE's spectral proxy, without its refinement along router directions.
"""

import array
import glob
import json
import math
import os
import struct

EXPERTS = "model.language_model.layers.{}.mlp.experts.{}_proj"
NORM = "model.language_model.layers.{}.post_attention_layernorm.weight"


class Checkpoint:
    """BF16 tensors of a directory of safetensors files."""

    def __init__(self, folder):
        self._places = {}
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            with open(path, "rb") as file:
                header_bytes, = struct.unpack("<Q", file.read(8))
                for name, entry in json.loads(file.read(header_bytes)).items():
                    if name != "__metadata__":
                        self._places[name] = (path, 8 + header_bytes, entry)

    def bits(self, name):
        """(shape, the numbers' 16 bits in row order)."""
        path, start, entry = self._places[name]
        begin, end = entry["data_offsets"]
        with open(path, "rb") as file:
            file.seek(start + begin)
            return entry["shape"], array.array("H", file.read(end - begin))


def bf16_squares():
    """By the number's 16 bits; infinities and what is no number do not occur in weights."""
    with_zeros = (struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in range(1 << 16))
    return [value * value if math.isfinite(value) else 0.0 for value in with_zeros]


def layer_scales(checkpoint, layer, squares):
    square_sum = lambda bits: sum(map(squares.__getitem__, bits))
    (experts, hidden, both_widths), gate_up = checkpoint.bits(EXPERTS.format(layer, "gate_up"))
    (_, width, _), down = checkpoint.bits(EXPERTS.format(layer, "down"))
    norm_squares = [squares[bits] for bits in checkpoint.bits(NORM.format(layer))[1]]
    capacities = []
    for expert in range(experts):
        gate = up = 0.0
        for channel in range(hidden):
            begin = (expert * hidden + channel) * both_widths
            gate += norm_squares[channel] * square_sum(gate_up[begin:begin + width])
            up += norm_squares[channel] * square_sum(gate_up[begin + width:begin + both_widths])
        size = width * hidden
        capacities.append(math.sqrt(gate * up * square_sum(down[expert * size:(expert + 1) * size])))
    mean = sum(capacities) / experts
    return [capacity / mean for capacity in capacities]


def expert_scales(folder, num_layers):
    """[layer · expert]."""
    checkpoint, squares = Checkpoint(folder), bf16_squares()
    return [scale for layer in range(num_layers) for scale in layer_scales(checkpoint, layer, squares)]
