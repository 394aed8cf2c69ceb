"""A model of transformers as a GGUF file, written as llama.cpp's converters write it.

Names of tensors are those of the `gguf` package's own table.
"""

import math
import pathlib

import gguf
import numpy as np

# Metadata -> keys of config.json, the first that is there.
_NUMBERS = {
    "block_count": ("num_hidden_layers", "n_layer"),
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "feed_forward_length": ("intermediate_size",),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon",),
    "attention.sliding_window": ("sliding_window",),
    "attention.sliding_window_pattern": ("sliding_window_pattern",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "rope.scaling.original_context_length": ("original_max_position_embeddings",),
}
_ROPE = {
    "rope.freq_base": "rope_theta",
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}


def write(
    path: pathlib.Path,
    architecture: str,
    hf: dict,  # config.json
    tensors: dict[str, np.ndarray],  # of the state dict
    kinds: dict[str, gguf.GGMLQuantizationType] | None = None,  # by our names; else float32
) -> pathlib.Path:
    numbers, factors = metadata(architecture, hf)
    writer = begun(path, architecture, numbers)
    for name, tensor in (converted(architecture, hf, tensors) | factors).items():
        kind = (kinds or {}).get(name)
        data = gguf.quantize(tensor, kind) if kind else np.ascontiguousarray(tensor, np.float32)
        writer.add_tensor(name, data, raw_dtype=kind)
    return finished(writer, path)


def begun(path: pathlib.Path, architecture: str, numbers: dict) -> gguf.GGUFWriter:
    """With an architecture's own metadata."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in numbers.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"{architecture}.{name}", value)
    return writer


def finished(writer: gguf.GGUFWriter, path: pathlib.Path) -> pathlib.Path:
    """The file, whole."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata(architecture: str, hf: dict) -> tuple[dict, dict[str, np.ndarray]]:
    """Numbers, and factors of rotary positions, which are tensors."""
    numbers = {}
    for name, keys in _NUMBERS.items():
        found = [hf[key] for key in keys if hf.get(key) is not None]
        numbers |= {name: found[0]} if found else {}
    if architecture == "gpt2":
        return numbers | {"feed_forward_length": 4 * hf["n_embd"]}, {}
    rope = hf["rope_parameters"]
    near, rope = rope.get("sliding_attention"), rope.get("full_attention", rope)
    kind, dims = rope["rope_type"], hf.get("head_dim") or hf["hidden_size"] // 4
    if near and architecture == "gemma3":
        numbers["rope.freq_base_swa"] = near["rope_theta"]
    if kind in ("default", "linear", "yarn"):
        numbers |= {name: rope[key] for name, key in _ROPE.items() if key in rope}
        numbers |= {} if kind == "default" else {"rope.scaling.type": kind}
        return numbers, {}
    numbers["rope.freq_base"] = rope["rope_theta"]
    if kind == "llama3":
        plain = rope["rope_theta"] ** (-np.arange(0, dims, 2) / dims)
        turns = plain * rope["original_max_position_embeddings"] / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        share = np.clip((turns - low) / (high - low), 0, 1)
        return numbers, {"rope_freqs.weight": 1 / ((1 - share) / rope["factor"] + share)}
    dims = int(dims * rope.get("partial_rotary_factor", 1))
    length = numbers["rope.scaling.original_context_length"]
    log = math.log(hf["max_position_embeddings"] / length) / math.log(length)
    numbers |= {"rope.dimension_count": dims, "rope.scaling.attn_factor": math.sqrt(1 + log)}
    return numbers, {
        f"rope_factors_{name}.weight": np.array(rope[f"{name}_factor"])
        for name in ("long", "short")
    }


def converted(architecture: str, hf: dict, tensors: dict) -> dict[str, np.ndarray]:
    found = {}
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, hf.get("num_hidden_layers") or hf["n_layer"])
    for name, tensor in tensors.items():
        bare, leaf = name.rsplit(".", 1)
        if bare == "lm_head" and (hf["tie_word_embeddings"] or architecture == "gpt2"):
            continue
        if architecture == "llama" and bare.endswith(("q_proj", "k_proj")):
            key = "num_attention_heads" if bare.endswith("q_proj") else "num_key_value_heads"
            halves = tensor.reshape(hf[key], 2, -1, *tensor.shape[1:])
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        elif architecture.startswith("gemma") and bare.endswith("norm"):
            tensor = tensor + 1
        elif architecture == "gpt2" and tensor.ndim == 2 and ".h." in bare:
            tensor = tensor.T
        found[f"{names.get_name(bare)}.{leaf}"] = tensor
    return found
