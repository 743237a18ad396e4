#!/usr/bin/env python3
"""Writes Σ x² of every matrix's inputs over one prompt of random tokens, by transformers in FP32, for tests/quantization.

  tools/make_activation_fixtures.py --model tests/model/fixtures/tiny_qwen3_moe \\
      --out tests/quantization/fixtures/tiny_activations.safetensors

One safetensors file with token_ids [T] i32 and for each set of inputs NAME: NAME.squares [K] f32 and NAME.rows [1] i32.
Names are attention.L, attention_output.L, gate_up.L and down.L of decoder layer L (without experts), head.0, and gate_up.M.E
and down.M.E of expert E of MoE layer M. Needs torch and transformers.
"""

import argparse

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

NUM_TOKENS = 61
DENSE_INPUTS = {"self_attn.k_proj": "attention", "self_attn.o_proj": "attention_output", "mlp.gate_proj": "gate_up",
                "mlp.down_proj": "down"}


class Recorder:
    """Sums of squares by name."""

    def __init__(self):
        self.tensors = {}

    def add(self, name, inputs):
        rows = inputs.reshape(-1, inputs.shape[-1])
        self.tensors[f"{name}.squares"] = rows.double().square().sum(dim=0).float()
        self.tensors[f"{name}.rows"] = torch.tensor([len(rows)], dtype=torch.int32)

    def of_linear(self, name):
        return lambda _module, arguments: self.add(name, arguments[0])

    def of_experts(self, moe_layer):
        def record(experts, arguments):
            hidden, chosen = arguments[0], arguments[1]
            for expert in range(experts.num_experts):
                rows = hidden[(chosen == expert).any(dim=-1)]
                if len(rows) == 0:
                    continue
                gate, up = torch.nn.functional.linear(rows, experts.gate_up_proj[expert]).chunk(2, dim=-1)
                self.add(f"gate_up.{moe_layer}.{expert}", rows)
                self.add(f"down.{moe_layer}.{expert}", experts.act_fn(gate) * up)

        return record

    def attach(self, model):
        moe_layer = 0
        for index, layer in enumerate(model.model.layers):
            for name, module in layer.named_modules():
                if name in DENSE_INPUTS:
                    module.register_forward_pre_hook(self.of_linear(f"{DENSE_INPUTS[name]}.{index}"))
            if hasattr(layer.mlp, "experts"):
                layer.mlp.experts.register_forward_pre_hook(self.of_experts(moe_layer))
                moe_layer += 1
        model.lm_head.register_forward_pre_hook(self.of_linear("head.0"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="eager").eval()
    token_ids = torch.randint(0, model.config.vocab_size, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(11))
    recorder = Recorder()
    recorder.attach(model)
    with torch.no_grad():
        model(input_ids=token_ids)
    save_file(recorder.tensors | {"token_ids": token_ids[0].to(torch.int32)}, arguments.out)
    print(f"{len(recorder.tensors) // 2} sets of inputs")


if __name__ == "__main__":
    main()
