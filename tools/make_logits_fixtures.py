#!/usr/bin/env python3
"""Writes reference logits of a checkpoint, computed by transformers in FP32 and BF16 (eager, CPU), for tests/model.

  tools/make_logits_fixtures.py --model models/demo --kind text   --out tests/model/fixtures/demo_text.safetensors
  tools/make_logits_fixtures.py --model models/demo --kind images --out tests/model/fixtures/demo_images.safetensors
  tools/make_logits_fixtures.py --model tests/model/fixtures/tiny_qwen3_moe --kind random \\
      --out tests/model/fixtures/tiny_qwen3_moe.safetensors

Each file is one safetensors file with, for every prompt i:
  i.token_ids       [T] i32
  i.rows            [R] i32   positions whose logits are recorded: evenly spaced, the last position among them
  i.logits          [R, V] f32   transformers in FP32
  i.bf16_error      [R] f32   largest difference of transformers' own BF16 logits from them
  i.bf16_kl         [R] f32   KL(FP32 || BF16), nats
  i.router_margin   [R] f32   min over MoE layers of (k-th - (k+1)-th largest router logit) at that position
  i.rotary          [T, 3] i32   positions of get_rope_index (image prompts only)
  i.grids           [images, 3] i32   patches: temporal, down, across (image prompts only)
  i.pixels          [patches, elements] u8   pixel = (u8 - 127.5) / 127.5 (image prompts only)
Text comes from the calibration split, never from eval. Needs torch, transformers, pillow.
"""

import argparse
import json
import pathlib

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

# Prompt lengths in tokens; a few hundred for some, edge cases for others.
TEXT_LENGTHS = [1, 7, 23, 64, 131, 257, 384]
# (images of one prompt, longer side in pixels); two prompts with several images, adjacent ones included.
IMAGE_PROMPTS = [
    (["emoji_003.jpg"], 160),
    (["chart_005.jpg"], 160),
    (["count_007.jpg"], 128),
    (["digits_011.jpg"], 96),
    (["grid4_013.jpg"], 160),
    (["ocr_017.jpg"], 160),
    (["emoji_019.jpg", "digits_021.jpg"], 96),
    (["count_023.jpg", "emoji_027.jpg", "chart_029.jpg"], 96),
]
ROWS_PER_PROMPT = 12


def load(model_dir, dtype):
    config = AutoConfig.from_pretrained(model_dir)
    factory = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    return factory.from_pretrained(model_dir, dtype=dtype, attn_implementation="eager").eval()


def text_prompts(model_dir):
    tokenizer = AutoProcessor.from_pretrained(model_dir).tokenizer
    text = (pathlib.Path(model_dir) / "calibration" / "text.txt").read_text()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = 0
    for length in TEXT_LENGTHS:
        yield {"input_ids": torch.tensor([ids[start : start + length]])}
        start += 2000


def random_prompts(model_dir):
    vocab_size = AutoConfig.from_pretrained(model_dir).vocab_size
    generator = torch.Generator().manual_seed(7)
    for length in (1, 2, 19, 61):
        yield {"input_ids": torch.randint(0, vocab_size, (1, length), generator=generator)}


def question_of(model_dir, image_name):
    for line in (pathlib.Path(model_dir) / "calibration" / "vqa.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["image"].endswith(image_name):
            return entry["question"], entry["answer"]
    raise SystemExit(f"no question about {image_name}")


def shrink(path, longer_side):
    image = Image.open(path).convert("RGB")
    scale = longer_side / max(image.size)
    return image.resize((max(32, round(image.width * scale)), max(32, round(image.height * scale))), Image.BICUBIC)


def image_prompts(model_dir):
    processor = AutoProcessor.from_pretrained(model_dir)
    folder = pathlib.Path(model_dir) / "calibration" / "images"
    for names, longer_side in IMAGE_PROMPTS:
        question, answer = question_of(model_dir, names[0])
        content = [{"type": "image"} for _ in names] + [{"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True) + answer
        images = [shrink(folder / name, longer_side) for name in names]
        yield dict(processor(text=[prompt], images=images, return_tensors="pt"))


def recorded_rows(length):
    count = min(length, ROWS_PER_PROMPT)
    return [(i + 1) * length // count - 1 for i in range(count)]


def router_margins(router_logits, top_k):
    """[T]: the smallest gap over the MoE layers between the last chosen expert's logit and the first left out."""
    margins = []
    for logits in router_logits:
        top = torch.topk(logits.reshape(-1, logits.shape[-1]).float(), top_k + 1).values
        margins.append(top[:, top_k - 1] - top[:, top_k])
    return torch.stack(margins).min(dim=0).values


def forward(model, inputs):
    """Logits [T, V] in FP32 and the router logits of every MoE layer."""
    router_logits = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: router_logits.append(output[0]))
        for name, module in model.named_modules()
        if type(module).__name__.endswith("TopKRouter")
    ]
    with torch.no_grad():
        logits = model(**inputs).logits[0].float()
    for hook in hooks:
        hook.remove()
    return logits, router_logits


def u8_pixels(pixel_values):
    pixels = torch.round(pixel_values.float() * 127.5 + 127.5).to(torch.uint8)
    if not torch.allclose((pixels.float() - 127.5) / 127.5, pixel_values.float(), atol=1e-6):
        raise SystemExit("these pixels are not multiples of 1/127.5: not a mean and std of 0.5")
    return pixels


def reference(models, inputs, top_k):
    """The tensors of one prompt, without their prefix."""
    exact, router_logits = forward(models["fp32"], inputs)
    coarse, _ = forward(models["bf16"], inputs)
    rows = torch.tensor(recorded_rows(exact.shape[0]))
    exact_log = torch.log_softmax(exact, dim=-1)
    kl = (exact_log.exp() * (exact_log - torch.log_softmax(coarse, dim=-1))).sum(dim=-1)
    tensors = {
        "token_ids": inputs["input_ids"][0].to(torch.int32),
        "rows": rows.to(torch.int32),
        "logits": exact[rows],
        "bf16_error": (exact - coarse).abs().amax(dim=-1)[rows],
        "bf16_kl": kl[rows],
        "router_margin": router_margins(router_logits, top_k)[rows],
    }
    if "pixel_values" in inputs:
        positions, _ = models["fp32"].model.get_rope_index(
            inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
        )
        tensors["rotary"] = positions[:, 0].T.to(torch.int32)
        tensors["grids"] = inputs["image_grid_thw"].to(torch.int32)
        tensors["pixels"] = u8_pixels(inputs["pixel_values"])
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=["text", "images", "random"], required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    models = {"fp32": load(arguments.model, torch.float32), "bf16": load(arguments.model, torch.bfloat16)}
    top_k = models["fp32"].config.get_text_config().num_experts_per_tok
    prompts = {"text": text_prompts, "images": image_prompts, "random": random_prompts}[arguments.kind](arguments.model)
    tensors = {}
    for i, inputs in enumerate(prompts):
        for name, tensor in reference(models, inputs, top_k).items():
            tensors[f"{i}.{name}"] = tensor.contiguous()
    save_file(tensors, arguments.out)
    report(tensors)


def report(tensors):
    margins = torch.cat([t for name, t in tensors.items() if name.endswith("router_margin")])
    logits = torch.cat([t for name, t in tensors.items() if name.endswith("logits")])
    errors = torch.cat([t for name, t in tensors.items() if name.endswith("bf16_error")])
    print(f"positions {len(margins)}, logit range {logits.max() - logits.min():.3f}")
    print(f"largest BF16 error {errors.max():.4f}, 5 % quantile of the router margin {margins.quantile(0.05):.5f}")


if __name__ == "__main__":
    main()
