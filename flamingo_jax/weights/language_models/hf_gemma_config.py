"""The configs of Gemma, 1 to 3 -> `LanguageModelConfig`'s fields.

`hf_lm_config` knows them by `model_type`.
"""

from collections.abc import Sequence
from typing import Any

from flamingo_jax.weights.language_models import hf_rope, hf_windows
from flamingo_jax.weights.language_models.hf_llama_config import llama
from flamingo_jax.weights.language_models.hf_settings import Json, refuse
from flamingo_jax.weights.language_models.hf_windows import FULL, SLIDING

_GEMMA_3 = {  # in transformers, where a file gives none
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131_072,
    "rope_parameters": None,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window_pattern": 6,
}


def gemma(hf: Json) -> dict[str, Any]:
    """Whatever its file says, "gelu" too, it was trained with the approximation by tanh."""
    tanh = "gelu_pytorch_tanh"
    refuse({"hidden_activation": hf.get("hidden_activation") or tanh}, hidden_activation=tanh)
    fields = llama({"tie_word_embeddings": True} | dict(hf) | {"hidden_act": tanh})
    return fields | {"norm_offset": True, "scale_embedding": True}


def gemma2(hf: Json) -> dict[str, Any]:
    """Keys that a file leaves out have their class's values; every other layer has a window."""
    defaults = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 256}
    kinds = [FULL if i % 2 else SLIDING for i in range(hf["num_hidden_layers"])]
    return _newer_gemma(defaults | dict(hf), kinds)


def gemma3_text(hf: Json) -> dict[str, Any]:
    """Of six layers five have a window, and rotary positions of their own.

    The files of those that read pictures name little more than what differs from these values.
    """
    hf = _GEMMA_3 | dict(hf)
    rope, every = hf["rope_parameters"] or {}, hf["sliding_window_pattern"]
    kinds = [SLIDING if (i + 1) % every else FULL for i in range(hf["num_hidden_layers"])]
    far = rope.get("full_attention") or hf.get("rope_scaling")
    fields = _newer_gemma(hf | {"rope_parameters": far}, kinds)
    if "sliding_window" in fields:
        near = hf_rope.plain({"rope_parameters": rope.get("sliding_attention")})
        base = near.get("rope_theta", hf["rope_local_base_freq"])
        fields["local_rope_base"] = float(base)
    return fields | {"qk_norm": True, "qk_norm_by_head": True}


def gemma3(hf: Json) -> dict[str, Any]:
    """The language model inside."""
    tied = {"tie_word_embeddings": hf.get("tie_word_embeddings", True)}
    return gemma3_text(tied | dict(hf["text_config"]))


def _newer_gemma(hf: Json, kinds: Sequence[str]) -> dict[str, Any]:
    both_ways = hf.get("use_bidirectional_attention") or False
    refuse({"use_bidirectional_attention": both_ways}, use_bidirectional_attention=False)
    caps = {
        ours: None if hf.get(theirs) is None else float(hf[theirs])
        for ours, theirs in (
            ("attention_softcap", "attn_logit_softcapping"),
            ("logits_softcap", "final_logit_softcapping"),
        )
    }
    scalar = float(hf.get("query_pre_attn_scalar", 256))
    own = {"query_pre_attn_scalar": scalar, "sandwich_norm": True}
    return gemma(hf) | hf_windows.fields(hf, kinds) | caps | own
