"""A published part of every format, small and random, as its publisher saves it."""

import json
import pathlib
import pickle

import gguf
import numpy as np
import safetensors.numpy

from flamingo_jax.tokenizer_models import byte_characters
from flamingo_jax.weights.files import torch_checkpoint_writer
from tests.language_model_folder import NUM_IDS, SEPARATOR, write_tokenizer
from tests.weights import open_flamingo_files
from tests.weights.encoders import efficientnet_lite_test, nfnet_test

# As `micro`'s, so that it can be trained on; with the two rows that `micro` has behind the bytes.
NUM_BYTES = 256
LAYERS, D, HEADS, KEY_HEADS, H, F, ROWS = 6, 32, 4, 2, 8, 64, NUM_IDS + 2
LLAMA = {
    "model_type": "llama",
    "vocab_size": ROWS,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "intermediate_size": F,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
Tensors = dict[str, np.ndarray]


def draw(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    """Normal numbers, small enough for a few layers of them."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, s).astype(np.float32) for name, s in shapes.items()}


def llama() -> Tensors:
    """As transformers names them, with the head that it is tied to and an old buffer."""
    shapes = {"model.embed_tokens.weight": (ROWS, D), "model.norm.weight": (D,)}
    for i in range(LAYERS):
        for name, shape in {
            "input_layernorm": (D,),
            "post_attention_layernorm": (D,),
            "self_attn.q_proj": (HEADS * H, D),
            "self_attn.k_proj": (KEY_HEADS * H, D),
            "self_attn.v_proj": (KEY_HEADS * H, D),
            "self_attn.o_proj": (D, HEADS * H),
            "mlp.gate_proj": (F, D),
            "mlp.up_proj": (F, D),
            "mlp.down_proj": (D, F),
        }.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
    tensors = draw(shapes, 0)
    return tensors | {
        "lm_head.weight": tensors["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(H // 2, np.float32),
    }


def write_hf_lm(path: pathlib.Path, tensors: Tensors) -> None:
    write_tokenizer(path)
    (path / "config.json").write_text(json.dumps(LLAMA))
    safetensors.numpy.save_file(tensors, path / "model.safetensors")


def llama_in_gguf() -> Tensors:
    shapes = {"token_embd": (ROWS, D), "output_norm": (D,)}
    for i in range(LAYERS):
        for name, shape in {
            "attn_norm": (D,),
            "ffn_norm": (D,),
            "attn_q": (HEADS * H, D),
            "attn_k": (KEY_HEADS * H, D),
            "attn_v": (KEY_HEADS * H, D),
            "attn_output": (D, HEADS * H),
            "ffn_gate": (F, D),
            "ffn_up": (F, D),
            "ffn_down": (D, F),
        }.items():
            shapes[f"blk.{i}.{name}"] = shape
    return draw({f"{name}.weight": shape for name, shape in shapes.items()}, 1)


def write_gguf(path: pathlib.Path, tensors: Tensors) -> None:
    """Matrices quantised to eight bits, and the tokens of `write_tokenizer`."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "block_count": LAYERS,
        "context_length": 256,
        "embedding_length": D,
        "feed_forward_length": F,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEY_HEADS,
        "vocab_size": ROWS,
    }.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_characters(), "<|endoftext|>", "ab", "<b>"])
    writer.add_token_types([1] * NUM_BYTES + [3, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(SEPARATOR)
    writer.add_eos_token_id(SEPARATOR)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, array in tensors.items():
        if array.ndim == 2:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def clip() -> Tensors:
    """The tower `thin` inside a whole CLIP of transformers."""
    text = draw({"text_model.final_layer_norm.weight": (8,), "text_projection.weight": (4, 8)}, 2)
    join = {"visual_projection.weight": np.ones((4, 32), "f4"), "logit_scale": np.ones((), "f4")}
    return open_flamingo_files.tower() | text | join


def open_clip() -> Tensors:
    """The same tower as open_clip names it."""
    theirs = open_flamingo_files.tower("")
    tensors = {
        "class_embedding": theirs.pop("embeddings.class_embedding"),
        "conv1.weight": theirs.pop("embeddings.patch_embedding.weight"),
        "positional_embedding": theirs.pop("embeddings.position_embedding.weight"),
        "proj": np.ones((32, 4), np.float32),
    }
    for i in range(3):
        for leaf in ("weight", "bias"):
            attention = f"encoder.layers.{i}.self_attn"
            qkv = [theirs.pop(f"{attention}.{x}_proj.{leaf}") for x in "qkv"]
            theirs[f"encoder.layers.{i}.attn.in_proj_{leaf}"] = np.concatenate(qkv)
    for name, tensor in theirs.items():
        for old, new in {
            "encoder.layers": "transformer.resblocks",
            "self_attn.out_proj": "attn.out_proj",
            "layer_norm": "ln_",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
            "pre_layrnorm": "ln_pre",
            "post_layernorm": "ln_post",
        }.items():
            name = name.replace(old, new)
        tensors[name] = tensor
    text = draw({"token_embedding.weight": (9, 8), "transformer.resblocks.0.ln_1.bias": (8,)}, 2)
    return {f"visual.{name}": a for name, a in tensors.items()} | text


def write_hf_clip(path: pathlib.Path, tensors: Tensors) -> None:
    path.mkdir()
    config = {"model_type": "clip", "vision_config": {"hidden_size": 32, "num_hidden_layers": 3}}
    config["vision_config"] |= {"num_attention_heads": 4, "patch_size": 8, "image_size": 32}
    (path / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, path / "model.safetensors")


def siglip() -> Tensors:
    """`siglip_thin` inside a whole SigLIP of transformers, with its pooling."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (32, 3, 8, 8),
        "embeddings.patch_embedding.bias": (32,),
        "embeddings.position_embedding.weight": (16, 32),
        "head.probe": (1, 1, 32),
        "head.attention.in_proj_weight": (96, 32),
        "head.attention.in_proj_bias": (96,),
    }
    maps = {"head.attention.out_proj": (32, 32), "head.mlp.fc1": (48, 32), "head.mlp.fc2": (32, 48)}
    norms = ["post_layernorm", "head.layernorm"]
    for i in range(3):
        layer = f"encoder.layers.{i}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        maps |= {f"{layer}.self_attn.{x}_proj": (32, 32) for x in ("q", "k", "v", "out")}
        maps |= {f"{layer}.mlp.fc1": (48, 32), f"{layer}.mlp.fc2": (32, 48)}
    for name, (outputs, inputs) in maps.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    shapes |= {f"{name}.{leaf}": (32,) for name in norms for leaf in ("weight", "bias")}
    beside = {"logit_scale": np.ones(1, "f4"), "logit_bias": np.ones(1, "f4")}
    return draw({f"vision_model.{name}": shape for name, shape in shapes.items()}, 3) | beside


def write_hf_siglip(path: pathlib.Path, tensors: Tensors) -> None:
    path.mkdir()
    tower = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}
    tower |= {"num_attention_heads": 4, "patch_size": 8, "image_size": 36}
    config = {"model_type": "siglip", "vision_config": tower}
    (path / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, path / "model.safetensors")


def write_open_clip(path: pathlib.Path, tensors: Tensors) -> None:
    safetensors.numpy.save_file(tensors, path)


def write_torch(path: pathlib.Path, tensors: Tensors) -> None:
    torch_checkpoint_writer.save_state_dict(path, tensors.items())


def timm_nfnet() -> Tensors:
    return nfnet_test.timm_state(nfnet_test.haiku_tree())


def haiku_nfnet() -> Tensors:
    """Flat, as "module:parameter"."""
    rows = nfnet_test.haiku_tree().items()
    return {f"{module}:{name}": a for module, row in rows for name, a in row.items()}


def write_haiku_nfnet(path: pathlib.Path, tensors: Tensors) -> None:
    tree: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        module, _, parameter = name.rpartition(":")
        tree.setdefault(module, {})[parameter] = tensor
    path.write_bytes(pickle.dumps(tree, 4))


def efficientnet_lite() -> Tensors:
    """`thin`, which `micro` has, without the counters that are no floats."""
    state = efficientnet_lite_test._random_state_dict("thin")
    return {name: np.asarray(a, np.float32) for name, a in state.items() if a.shape}


# What is in a file of each format, how it is written, and what it is called.
FORMATS = {
    "hf_lm": (llama, write_hf_lm, "llama"),
    "gguf": (llama_in_gguf, write_gguf, "llama.gguf"),
    "hf_clip": (clip, write_hf_clip, "clip"),
    "open_clip": (open_clip, write_open_clip, "open_clip_model.safetensors"),
    "hf_siglip": (siglip, write_hf_siglip, "siglip"),
    "timm_nfnet": (timm_nfnet, write_torch, "dm_nfnet.pth"),
    "haiku_nfnet": (haiku_nfnet, write_haiku_nfnet, "F_haiku.npz"),
    "efficientnet_lite": (efficientnet_lite, write_torch, "lite.pth"),
}


def write(kind: str, folder: pathlib.Path, tensors: Tensors | None = None) -> pathlib.Path:
    """The part of this format in a folder; its path."""
    make, save, name = FORMATS[kind]
    save(folder / name, make() if tensors is None else tensors)
    return folder / name
