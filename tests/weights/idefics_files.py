"""A folder of IDEFICS v1 made by hand: two gated blocks, all options of the released models on."""

import json
import pathlib

import numpy as np
import safetensors.numpy

from tests.language_model_folder import NUM_IDS, write_tokenizer
from tests.weights.open_flamingo_files import Tensors, tower

D, HEADS, LAYERS, EVERY, HIDDEN = 16, 2, 4, 2, 20
E, LATENTS, PERCEIVER_HEADS, HEAD_DIM = 32, 3, 2, 6
NEW = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
CONFIG = {
    "model_type": "idefics",
    "vocab_size": NUM_IDS,
    "additional_vocab_size": len(NEW),
    "hidden_size": D,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "cross_layer_interval": EVERY,
    "qk_layer_norms": True,
    "use_resampler": True,
    "vision_config": {
        "embed_dim": E,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "patch_size": 8,
        "image_size": 32,
    },
    "perceiver_config": {
        "resampler_n_latents": LATENTS,
        "resampler_depth": 1,
        "resampler_n_heads": PERCEIVER_HEADS,
        "resampler_head_dim": HEAD_DIM,
        "qk_layer_norms_perceiver": True,
    },
}


def tensors() -> Tensors:
    """As transformers names them, the image tower's too."""
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (NUM_IDS, D),
        "lm_head.additional_fc.weight": (len(NEW), D),
        "model.embed_tokens.weight": (NUM_IDS, D),
        "model.embed_tokens.additional_embedding.weight": (len(NEW), D),
        "model.norm.weight": (D,),
    }

    def block(name: str, attention: str, media: int) -> None:
        shapes.update(
            {
                f"{name}.{attention}.q_proj.weight": (D, D),
                f"{name}.{attention}.k_proj.weight": (D, media),
                f"{name}.{attention}.v_proj.weight": (D, media),
                f"{name}.{attention}.o_proj.weight": (D, D),
                f"{name}.input_layernorm.weight": (D,),
                f"{name}.post_attention_layernorm.weight": (D,),
                f"{name}.mlp.gate_proj.weight": (HIDDEN, D),
                f"{name}.mlp.up_proj.weight": (HIDDEN, D),
                f"{name}.mlp.down_proj.weight": (D, HIDDEN),
            }
        )

    for i in range(LAYERS):
        block(f"model.layers.{i}", "self_attn", D)
        shapes[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = (D // HEADS // 2,)
    for i in range(LAYERS // EVERY):
        name = f"model.gated_cross_attn_layers.{i}"
        block(name, "cross_attn", E)
        shapes |= {f"{name}.alpha_{branch}": (1,) for branch in ("cross_attn", "dense")}
        shapes |= {f"{name}.cross_attn.{x}_layer_norm.weight": (D // HEADS,) for x in "qk"}
        shapes[f"{name}.cross_attn.rotary_emb.inv_freq"] = (D // HEADS // 2,)
    name, inner = "model.perceiver_resampler", PERCEIVER_HEADS * HEAD_DIM
    norms = {f"{name}.layer_norm": E, f"{name}.blocks.0.1.ln": E}
    norms |= {f"{name}.blocks.0.0.{x}_layer_norm": E for x in ("context", "latents")}
    norms |= {f"{name}.blocks.0.0.{x}_layer_norm": HEAD_DIM for x in "qk"}
    for norm, width in norms.items():
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    shapes |= {f"{name}.blocks.0.0.{x}_proj.weight": (inner, E) for x in "qkv"}
    shapes |= {
        f"{name}.latents": (LATENTS, E),
        f"{name}.blocks.0.0.output_proj.weight": (E, inner),
        f"{name}.blocks.0.1.fc.weight": (4 * E, E),
        f"{name}.blocks.0.1.c_proj.weight": (E, 4 * E),
    }
    rng = np.random.default_rng(0)
    drawn = {n: rng.normal(0, 0.3, shape).astype(np.float16) for n, shape in shapes.items()}
    return drawn | tower("model.vision_model.")


def write_tokens(folder: pathlib.Path) -> None:
    """`tokenizer.json` with the new tokens behind the others."""
    write_tokenizer(folder)
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    (first,) = values["added_tokens"]
    values["added_tokens"] += [
        first | {"id": NUM_IDS + i, "content": name} for i, name in enumerate(NEW)
    ]
    path.write_text(json.dumps(values))


def write(folder: pathlib.Path, found: Tensors | None = None, **changes) -> None:
    """The folder, in two shards; `changes` of `config.json`."""
    write_tokens(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    found = tensors() if found is None else found
    names = sorted(found)
    for i, part in enumerate((names[::2], names[1::2])):
        file = folder / f"model-0000{i + 1}-of-00002.safetensors"
        safetensors.numpy.save_file({name: found[name] for name in part}, file)
