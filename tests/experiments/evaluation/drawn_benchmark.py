"""A benchmark of drawn shapes, for the tests of experiments.evaluate."""

import json
import pathlib

from data_pipelines.demo import synthetic
from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    ImagePreprocessing,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
)

COLORS = ("red", "green", "blue")
SHAPES = ("circle", "square")


def write(folder: pathlib.Path, kind: str, **task) -> pathlib.Path:
    """KIND.jsonl: six pictures as support and as queries, of the last two copies as queries.

    `kind` is captions, question or label.
    """
    lines = [{"task": {"name": kind, "max_tokens": 3} | task}]
    names = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    for number, name in enumerate(names):
        color, shape = name.split()
        for copy in range(2):
            (folder / f"{number}{copy}.png").write_bytes(synthetic.draw(color, shape, number))
        answer = {
            "captions": {"captions": [f"a {name}", name]},
            "question": {"question": "which colour?", "answers": [color]},
            "label": {"label": shape},
        }[kind]
        lines.append({"id": f"s{number}", "split": "support", "image": f"{number}0.png", **answer})
        picture = f"{number}{int(number > 3)}.png"
        lines.append({"id": f"q{number}", "split": "query", "image": picture, **answer})
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def model_config() -> FlamingoConfig:
    """One block, one gated block, a thin ViT: little to compile."""
    return FlamingoConfig(
        language_model=LanguageModelConfig(
            vocab_size=259,
            num_layers=1,
            width=16,
            num_heads=2,
            head_dim=8,
            ffw_width=32,
            max_length=128,
        ),
        vision=VisionConfig(
            "vit",
            "thin",
            num_features=16,
            width=32,
            preprocessing=ImagePreprocessing(size_px=32, pad=(255, 255, 255)),
        ),
        resampler=ResamplerConfig(
            num_latents=2, depth=1, width=16, num_heads=2, head_dim=8, num_frames=2
        ),
        cross_attention=CrossAttentionConfig(every=1, num_heads=2, head_dim=8),
        num_new_tokens=2,
    )
