"""What a user downloads for an OpenFlamingo, made by hand: language model, tower, checkpoint.

Four blocks of MPT with rows behind the tokenizer's, `thin`'s tower, and gated blocks before every
second block.
"""

import json
import pathlib

import numpy as np
import safetensors.numpy

from flamingo_jax.models.vit import VARIANTS
from tests.language_model_folder import NUM_IDS, write_tokenizer

D, LAYERS, EVERY, ROWS = 16, 4, 2, NUM_IDS + 4
E = 32  # of the tower
LATENTS, DEPTH, INNER = 64, 6, 512  # of every OpenFlamingo; 8 heads of 64 in both parts
LM = {
    "model_type": "mpt",
    "vocab_size": ROWS,
    "d_model": D,
    "n_heads": 2,
    "n_layers": LAYERS,
    "expansion_ratio": 4,
    "max_seq_len": 64,
    "no_bias": True,
    "attn_config": {"alibi": True},
}
Tensors = dict[str, np.ndarray]


def _draw(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, s).astype(np.float32) for name, s in shapes.items()}


def language_model() -> Tensors:
    """As transformers names them."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (ROWS, D), "norm_f.weight": (D,)}
    for i in range(LAYERS):
        shapes |= {
            f"blocks.{i}.norm_1.weight": (D,),
            f"blocks.{i}.norm_2.weight": (D,),
            f"blocks.{i}.attn.Wqkv.weight": (3 * D, D),
            f"blocks.{i}.attn.out_proj.weight": (D, D),
            f"blocks.{i}.ffn.up_proj.weight": (4 * D, D),
            f"blocks.{i}.ffn.down_proj.weight": (D, 4 * D),
        }
    return _draw({f"transformer.{name}": shape for name, shape in shapes.items()}, 0)


def tower(prefix: str = "vision_model.", depth: int = VARIANTS["thin"].depth) -> Tensors:
    """`thin` as transformers names it."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (E,),
        "embeddings.patch_embedding.weight": (E, 3, 8, 8),
        "embeddings.position_embedding.weight": (17, E),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    for i in range(depth):
        layer = f"encoder.layers.{i}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        maps = {f"self_attn.{x}_proj": (E, E) for x in ("q", "k", "v", "out")}
        for name, (o, n) in (maps | {"mlp.fc1": (4 * E, E), "mlp.fc2": (E, 4 * E)}).items():
            shapes |= {f"{layer}.{name}.weight": (o, n), f"{layer}.{name}.bias": (o,)}
    for norm in norms:
        shapes |= {f"{norm}.weight": (E,), f"{norm}.bias": (E,)}
    return _draw({prefix + name: shape for name, shape in shapes.items()}, 1)


def checkpoint() -> Tensors:
    """As OpenFlamingo's filter leaves them, with the language model's rows and three new ones."""
    shapes: dict[str, tuple[int, ...]] = {"perceiver.latents": (LATENTS, E)}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def maps(attention: str, feed_forward: str, width: int) -> None:
        norm(f"{feed_forward}.0", width)
        shapes.update(
            {
                f"{attention}.to_q.weight": (INNER, width),
                f"{attention}.to_kv.weight": (2 * INNER, E),
                f"{attention}.to_out.weight": (width, INNER),
                f"{feed_forward}.1.weight": (4 * width, width),
                f"{feed_forward}.3.weight": (width, 4 * width),
            }
        )

    norm("perceiver.norm", E)
    for i in range(DEPTH):
        layer = f"perceiver.layers.{i}"
        norm(f"{layer}.0.norm_media", E)
        norm(f"{layer}.0.norm_latents", E)
        maps(f"{layer}.0", f"{layer}.1", E)
    for i in range(EVERY - 1, LAYERS, EVERY):
        layer = f"lang_encoder.transformer.blocks.{i}.gated_cross_attn_layer"
        norm(f"{layer}.attn.norm", D)
        maps(f"{layer}.attn", f"{layer}.ff", D)
        shapes |= {f"{layer}.attn_gate": (1,), f"{layer}.ff_gate": (1,)}
    tensors = _draw(shapes, 2)
    new = np.random.default_rng(3).normal(0, 0.3, (3, D)).astype(np.float32)
    table = language_model()["transformer.wte.weight"][:NUM_IDS]
    return tensors | {"lang_encoder.transformer.wte.weight": np.concatenate([table, new])}


def write(folder: pathlib.Path, tensors: Tensors | None = None) -> None:
    """`lm`, `clip` and `checkpoint.safetensors` in a folder."""
    write_tokenizer(folder / "lm")
    (folder / "lm" / "config.json").write_text(json.dumps(LM))
    safetensors.numpy.save_file(language_model(), folder / "lm" / "model.safetensors")
    (folder / "clip").mkdir()
    safetensors.numpy.save_file(tower(), folder / "clip" / "model.safetensors")
    write_checkpoint(folder, checkpoint() if tensors is None else tensors)


def write_checkpoint(folder: pathlib.Path, tensors: Tensors) -> None:
    """`checkpoint.safetensors` alone."""
    safetensors.numpy.save_file(tensors, folder / "checkpoint.safetensors")
