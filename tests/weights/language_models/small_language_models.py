"""Small language models as files say them: `config.json`, and tensors where any are read."""

import numpy as np


def small_opt():
    """config.json and random tensors of a one-layer OPT, as a file holds them."""
    values = {
        "model_type": "opt",
        "vocab_size": 11,
        "hidden_size": 8,
        "word_embed_proj_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 12,
        "max_position_embeddings": 5,
        "activation_function": "relu",
    }
    shapes = {"embed_tokens.weight": (11, 8), "embed_positions.weight": (7, 8)}
    shapes |= {f"final_layer_norm.{kind}": (8,) for kind in ("weight", "bias")}
    for module, (outputs, inputs) in {
        "self_attn.q_proj": (8, 8),
        "self_attn.k_proj": (8, 8),
        "self_attn.v_proj": (8, 8),
        "self_attn.out_proj": (8, 8),
        "fc1": (12, 8),
        "fc2": (8, 12),
    }.items():
        shapes[f"layers.0.{module}.weight"] = (outputs, inputs)
        shapes[f"layers.0.{module}.bias"] = (outputs,)
    for norm in ("self_attn_layer_norm", "final_layer_norm"):
        shapes |= {f"layers.0.{norm}.{kind}": (8,) for kind in ("weight", "bias")}
    rng = np.random.default_rng(0)
    tensors = {f"model.decoder.{k}": rng.normal(size=v).astype("f4") for k, v in shapes.items()}
    return values, tensors


def small_qwen(**changes):
    """config.json of a one-layer Qwen2, which has all that newer families change."""
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 12, "max_position_embeddings": 64, "num_key_value_heads": 1}
    kind = {"model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6}
    return sizes | kind | changes
