#!/usr/bin/env python3
"""Writes the image fixtures of tests/processor and what transformers' image processor makes of them.

    python tools/make_image_fixtures.py tests/processor/fixtures/images

Needs pillow, numpy, torch, torchvision and transformers (written with 5.23). Each image goes the way of transformers:
Image.open, exif_transpose, then Qwen2VLImageProcessor, which lays transparency on white. One case departs from it and says so:
Pillow clips 16-bit grey to white, so the expectation is made from its upper 8 bits.

`expected.json` lists per image its config and resized size; NAME.rgb holds the resized 8-bit pixels [height, width, 3]; NAME.f32,
for a few, the processor's float patches themselves. The pixels are recovered from the patches and checked to give them back.
"""
import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

CONFIGS = {
    "half.json": {
        "image_processor_type": "Qwen2VLImageProcessorFast", "size": {"shortest_edge": 1024, "longest_edge": 12544},
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255,
    },
    # The class's own mean, deviation and patch size, by the older spelling of the pixel range.
    "clip.json": {"min_pixels": 4096, "max_pixels": 9000},
}


def picture(height, width, seed):
    """Smooth gradients with hard-edged shapes and a little noise: what resampling and chroma subsampling get wrong first."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    rgb = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 127 + 127 * np.sin((x + 2 * y) / 9)], -1)
    rgb[(x // 7 + y // 5) % 4 == 0] = random.integers(0, 256, 3)
    inside = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 4) ** 2
    rgb[inside] = random.integers(0, 256, 3)
    return np.clip(rgb + random.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)


def alpha_ramp(height, width):
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_rows(samples):
    """Filter 0 scanlines of an array [height, width * channels] in PNG's byte order."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


def png_file(size, depth, color_type, rows, interlace=0):
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, color_type, 0, 0, interlace)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows, 9)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def interlaced_png(rgb):
    rows = b""
    for y0, x0, dy, dx in [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]:
        part = rgb[y0::dy, x0::dx]
        if part.size:
            rows += png_rows(part.reshape(part.shape[0], -1))
    return png_file(rgb.shape[:2], 8, 2, rows, interlace=1)


def deep_png(samples, color_type):
    """16 bits a channel; Pillow cannot write these for colour."""
    height, width = samples.shape[:2]
    return png_file((height, width), 16, color_type, png_rows(samples.reshape(height, -1).astype(">u2")))


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def rotated_jpeg(rgb, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(rgb), format="JPEG", quality=90, exif=exif.tobytes(), **options)


def png_images():
    rgb = picture(64, 96, 1)
    deep = np.random.default_rng(2).integers(0, 65536, (64, 96, 3)).astype(np.uint16)
    grey_alpha = np.stack([rgb[..., 0], alpha_ramp(64, 96)], -1)
    palette = Image.fromarray(rgb).quantize(16)
    yield "rgb.png", encoded(Image.fromarray(rgb), format="PNG")
    yield "rgba.png", encoded(Image.fromarray(np.dstack([rgb, alpha_ramp(64, 96)])), format="PNG")
    yield "palette.png", encoded(palette, format="PNG")
    yield "palette_transparent.png", encoded(palette, format="PNG", transparency=bytes(range(0, 256, 16)))
    yield "rgb_one_transparent.png", encoded(Image.fromarray(rgb // 128 * 255), format="PNG", transparency=(255, 0, 255))
    yield "grey.png", encoded(Image.fromarray(rgb[..., 0]), format="PNG")
    yield "grey_alpha.png", encoded(Image.fromarray(grey_alpha, "LA"), format="PNG")
    yield "one_bit.png", encoded(Image.fromarray(rgb[..., 2]).convert("1"), format="PNG")
    yield "deep_rgb.png", deep_png(deep, 2)
    yield "deep_grey.png", deep_png(deep[..., 0], 0)
    yield "interlaced.png", interlaced_png(picture(65, 97, 3))
    yield "one_pixel.png", encoded(Image.fromarray(picture(1, 1, 4)), format="PNG")
    yield "tiny.png", encoded(Image.fromarray(picture(7, 5, 5)), format="PNG")
    yield "wide.png", encoded(Image.fromarray(picture(3, 600, 6)), format="PNG")
    yield "tall.png", encoded(Image.fromarray(picture(199, 1, 7)), format="PNG")
    yield "prime.png", encoded(Image.fromarray(picture(151, 211, 8)), format="PNG")


def jpeg_images():
    rgb = picture(64, 96, 11)
    yield "444.jpg", encoded(Image.fromarray(rgb), format="JPEG", quality=92, subsampling=0)
    yield "420.jpg", encoded(Image.fromarray(rgb), format="JPEG", quality=85, subsampling=2)
    yield "422_odd.jpg", encoded(Image.fromarray(picture(97, 61, 12)), format="JPEG", quality=85, subsampling=1)
    yield "420_large.jpg", encoded(Image.fromarray(picture(223, 307, 13)), format="JPEG", quality=80, subsampling=2)
    yield "grey.jpg", encoded(Image.fromarray(rgb[..., 1]), format="JPEG", quality=85)
    yield "cmyk.jpg", encoded(Image.fromarray(rgb).convert("CMYK"), format="JPEG", quality=92)
    yield "progressive.jpg", encoded(Image.fromarray(rgb), format="JPEG", quality=85, progressive=True)
    yield "restarts.jpg", encoded(Image.fromarray(rgb), format="JPEG", quality=85, restart_marker_blocks=2)
    for orientation in range(2, 9):
        yield f"orientation_{orientation}.jpg", rotated_jpeg(picture(32, 64, 20 + orientation), orientation)


def opened(name, data):
    if name == "deep_grey.png":
        return Image.fromarray((np.array(Image.open(io.BytesIO(data))) >> 8).astype(np.uint8))
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def byte_pixels(patches, grid, processor):
    """The 8-bit RGB pixels behind float patches, exactly: the inverse of normalising and cutting."""
    _, grid_h, grid_w = grid
    merge, patch = processor.merge_size, processor.patch_size
    blocks = patches.reshape(grid_h // merge, grid_w // merge, merge, merge, 3, processor.temporal_patch_size, patch, patch)
    assert (blocks[:, :, :, :, :, 0] == blocks[:, :, :, :, :, -1]).all()
    image = blocks[:, :, :, :, :, 0].permute(0, 2, 5, 1, 3, 6, 4).reshape(grid_h * patch, grid_w * patch, 3)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (processor.image_mean, processor.image_std))
    exact = (image.double() * std + mean) * 255
    assert (exact - exact.round()).abs().max() < 1e-2
    return exact.round().to(torch.uint8).numpy()


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in CONFIGS.items():
        (folder / name).write_text(json.dumps(config, indent=1) + "\n")
    processors = {name: Qwen2VLImageProcessor(**config) for name, config in CONFIGS.items()}
    cases = [(name, data, "half.json") for name, data in [*png_images(), *jpeg_images()]]
    cases += [(name, data, "clip.json") for name, data, _ in cases if name in ("prime.png", "420_large.jpg", "tiny.png")]

    expected = []
    for name, data, config in cases:
        (folder / name).write_bytes(data)
        result = processors[config](images=[opened(name, data)], return_tensors="pt")
        grid = result["image_grid_thw"][0].tolist()
        pixels = byte_pixels(result["pixel_values"], grid, processors[config])
        stem = f"{name}.{config.removesuffix('.json')}"
        (folder / f"{stem}.rgb").write_bytes(pixels.tobytes())
        entry = {"image": name, "config": config, "grid": grid, "pixels": f"{stem}.rgb"}
        if name in ("tiny.png", "444.jpg"):
            (folder / f"{stem}.f32").write_bytes(result["pixel_values"].numpy().astype("<f4").tobytes())
            entry["patches"] = f"{stem}.f32"
        expected.append(entry)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
