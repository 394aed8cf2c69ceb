"""The architectures that GGUF files are read of: tensors' names, and what no metadata say.

As llama.cpp's converters write them. Kernels are (out, in), GPT-2's too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flamingo_jax.weights.language_models.hf_lm_names import Names

_LLAMA = Names(
    prefixes=(),
    embedding="token_embd",
    final_norm="output_norm",
    layer="blk.{}.",
    modules={
        "attn_norm": "attn_norm",
        "attn_q": "q",
        "attn_k": "k",
        "attn_v": "v",
        "attn_output": "o",
        "ffn_norm": "ffw_norm",
        "ffn_gate": "gate",
        "ffn_up": "up",
        "ffn_down": "down",
    },
    head="output",
)
_FUSED = {
    "attn_norm": "attn_norm",
    "attn_qkv": "q k v",
    "attn_output": "o",
    "ffn_norm": "ffw_norm",
    "ffn_down": "down",
}
_QK_NORMS = {"attn_q_norm": "q_norm", "attn_k_norm": "k_norm"}
_POST_NORMS = {"post_attention_norm": "attn_post_norm", "post_ffw_norm": "ffw_post_norm"}
_GEMMA = {"norm_offset": True, "scale_embedding": True, "activation": "gelu_tanh"}
_GEMMA_2 = _GEMMA | {"sandwich_norm": True}


class Architecture(NamedTuple):
    """What all files of one have in common."""

    names: Names
    fields: Mapping[str, Any] = {}  # of LanguageModelConfig
    # Rows of queries and keys are in the order that rotates neighbours, (0, 1), (2, 3) and so on,
    # where ours rotates the halves of a head.
    interleaved: bool = False
    global_every: int | None = None  # layer that sees all; 0: none where there is a window
    # Queries are over the root of width / num_heads in models of so many layers, else head_dim.
    scaled_by_width: int | None = None
    defaults: Mapping[str, float] = {}  # of metadata that older files lack


ARCHITECTURES = {
    "llama": Architecture(_LLAMA, interleaved=True, global_every=0),
    "qwen2": Architecture(_LLAMA, {"qkv_bias": True}),
    "qwen3": Architecture(
        _LLAMA._replace(modules={**_LLAMA.modules, **_QK_NORMS}),
        {"qk_norm": True, "qk_norm_by_head": True},
    ),
    "gemma": Architecture(_LLAMA, _GEMMA),
    "gemma2": Architecture(
        _LLAMA._replace(modules={**_LLAMA.modules, **_POST_NORMS}),
        _GEMMA_2,
        global_every=2,
        scaled_by_width=46,
        defaults={
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "attention.sliding_window": 4096,
        },
    ),
    "gemma3": Architecture(
        _LLAMA._replace(modules={**_LLAMA.modules, **_POST_NORMS, **_QK_NORMS}),
        _GEMMA_2 | {"qk_norm": True, "qk_norm_by_head": True},
        global_every=6,
        scaled_by_width=62,
        defaults={"rope.freq_base_swa": 10_000.0},
    ),
    "olmo2": Architecture(
        _LLAMA._replace(
            modules={
                **{name: part for name, part in _LLAMA.modules.items() if "norm" not in name},
                **_QK_NORMS,
                "post_attention_norm": "attn_norm",
                "post_ffw_norm": "ffw_norm",
            }
        ),
        {"qk_norm": True, "norm_after": True},
    ),
    "phi3": Architecture(_LLAMA._replace(modules={**_FUSED, "ffn_up": "gate up"}), global_every=0),
    "gpt2": Architecture(
        _LLAMA._replace(modules={**_FUSED, "ffn_up": "up"}, positions="position_embd"),
        {
            "norm": "layernorm",
            "activation": "gelu_tanh",
            "gated_ffw": False,
            "positions": "learned",
            "use_bias": True,
        },
    ),
}
