#!/usr/bin/env python3
"""Writes a tiny random qwen3_moe checkpoint whose shapes are awkward on purpose.

One dense layer among the MoE layers, experts that 2, 3 and 4 ranks cannot share evenly, an untied head, attention biases,
plain rope, routing weights that are not normalised. Needs torch and transformers.

  tools/make_tiny_model.py --out tests/model/fixtures/tiny_qwen3_moe
"""

import argparse

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM


def tiny_config():
    return Qwen3MoeConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        attention_bias=True,
        moe_intermediate_size=24,
        num_experts=7,
        num_experts_per_tok=3,
        norm_topk_prob=False,
        mlp_only_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=0,
        eos_token_id=[1, 2],
        pad_token_id=0,
    )


def randomise(model, seed):
    """Larger weights than the usual initialisation, so that logits differ visibly between experts and positions."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.data = 1.0 + 0.2 * noise
        elif name.endswith("bias"):
            parameter.data = 0.1 * noise
        elif "gate.weight" in name:
            parameter.data = 0.3 * noise
        else:
            parameter.data = noise / parameter.shape[-1] ** 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    model = Qwen3MoeForCausalLM(tiny_config())
    with torch.no_grad():
        randomise(model, arguments.seed)
    model.to(torch.bfloat16).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
