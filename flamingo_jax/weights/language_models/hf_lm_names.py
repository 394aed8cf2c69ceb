"""How transformers names the tensors of each family of language models.

Covers LLaMA to 3.2, Mistral, Qwen2 to 3, Gemma to 3, OLMo 2, Phi-3 and 4, GPT-NeoX (Pythia,
RedPajama-INCITE), MPT-7B, MPT-1B (`mosaic_gpt`), OPT and GPT-2, and what stands inside IDEFICS and
the Gemma 3 that reads pictures.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Names(NamedTuple):
    """How one family names and lays out its tensors; names without `.weight` and `.bias`."""

    prefixes: tuple[str, ...]  # taken off every name that has them, in this order
    embedding: str
    final_norm: str
    layer: str  # prefix of layer {}
    modules: Mapping[str, str]  # in a layer -> neutral name, or "q k v" where they are fused
    head: str = "lm_head"
    positions: str | None = None
    first_position: int = 0  # rows of the position table that no real token reads
    in_by_out: bool = False  # kernels stored (in, out); torch's Linear has (out, in)
    qkv_by_head: bool = False  # fused outputs are (N, 3, H), not (3, N, H)
    buffers: tuple[str, ...] = ()  # ends of names that hold no parameters
    beside: tuple[str, ...] = ()  # starts of names that are another part's


_LLAMA = Names(
    prefixes=("model.",),
    embedding="embed_tokens",
    final_norm="norm",
    layer="layers.{}.",
    modules={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "q",
        "self_attn.k_proj": "k",
        "self_attn.v_proj": "v",
        "self_attn.o_proj": "o",
        "post_attention_layernorm": "ffw_norm",
        "mlp.gate_proj": "gate",
        "mlp.up_proj": "up",
        "mlp.down_proj": "down",
    },
    buffers=(".rotary_emb.inv_freq",),
)

_GEMMA_2 = _LLAMA._replace(
    modules={
        **_LLAMA.modules,
        "post_attention_layernorm": "attn_post_norm",
        "pre_feedforward_layernorm": "ffw_norm",
        "post_feedforward_layernorm": "ffw_post_norm",
    }
)

_GEMMA_3 = _GEMMA_2._replace(
    modules={**_GEMMA_2.modules, "self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
)

NAMES: dict[str, Names] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA._replace(
        modules={**_LLAMA.modules, "self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
    ),
    "gemma": _LLAMA,
    "gemma2": _GEMMA_2,
    "gemma3_text": _GEMMA_3,
    "gemma3": _GEMMA_3._replace(
        prefixes=("model.", "language_model.", "model."),
        beside=(
            *("vision_tower.", "multi_modal_projector."),
            *("model.vision_tower.", "model.multi_modal_projector."),
        ),
    ),
    "olmo2": _LLAMA._replace(
        modules={
            **{name: part for name, part in _LLAMA.modules.items() if not part.endswith("_norm")},
            "self_attn.q_norm": "q_norm",
            "self_attn.k_norm": "k_norm",
            "post_attention_layernorm": "attn_norm",
            "post_feedforward_layernorm": "ffw_norm",
        }
    ),
    "phi3": _LLAMA._replace(
        modules={
            "input_layernorm": "attn_norm",
            "self_attn.qkv_proj": "q k v",
            "self_attn.o_proj": "o",
            "post_attention_layernorm": "ffw_norm",
            "mlp.gate_up_proj": "gate up",
            "mlp.down_proj": "down",
        }
    ),
    "idefics": _LLAMA._replace(
        beside=(
            "model.vision_model.",
            "model.perceiver_resampler.",
            "model.gated_cross_attn_layers.",
            "model.embed_tokens.additional_embedding.",
            "lm_head.additional_fc.",
        )
    ),
    "gpt_neox": Names(
        prefixes=("gpt_neox.",),
        embedding="embed_in",
        final_norm="final_layer_norm",
        layer="layers.{}.",
        modules={
            "input_layernorm": "attn_norm",
            "attention.query_key_value": "q k v",
            "attention.dense": "o",
            "post_attention_layernorm": "ffw_norm",
            "mlp.dense_h_to_4h": "up",
            "mlp.dense_4h_to_h": "down",
        },
        head="embed_out",  # in files; transformers 5 calls it lm_head in memory
        qkv_by_head=True,
        buffers=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
    ),
    "mpt": Names(
        prefixes=("transformer.",),
        embedding="wte",
        final_norm="norm_f",
        layer="blocks.{}.",
        modules={
            "norm_1": "attn_norm",
            "attn.Wqkv": "q k v",
            "attn.out_proj": "o",
            "norm_2": "ffw_norm",
            "ffn.up_proj": "up",
            "ffn.down_proj": "down",
        },
    ),
    "mosaic_gpt": Names(
        prefixes=("transformer.",),
        embedding="wte",
        final_norm="ln_f",
        layer="blocks.{}.",
        modules={
            "ln_1": "attn_norm",
            "attn.Wqkv": "q k v",
            "attn.q_ln": "q_norm",
            "attn.k_ln": "k_norm",
            "attn.out_proj": "o",
            "ln_2": "ffw_norm",
            "mlp.mlp_up": "up",
            "mlp.mlp_down": "down",
        },
    ),
    "opt": Names(
        prefixes=("model.", "decoder."),
        embedding="embed_tokens",
        final_norm="final_layer_norm",
        layer="layers.{}.",
        modules={
            "self_attn_layer_norm": "attn_norm",
            "self_attn.q_proj": "q",
            "self_attn.k_proj": "k",
            "self_attn.v_proj": "v",
            "self_attn.out_proj": "o",
            "final_layer_norm": "ffw_norm",
            "fc1": "up",
            "fc2": "down",
        },
        positions="embed_positions",
        first_position=2,
    ),
    "gpt2": Names(
        prefixes=("transformer.",),
        embedding="wte",
        final_norm="ln_f",
        layer="h.{}.",
        modules={
            "ln_1": "attn_norm",
            "attn.c_attn": "q k v",
            "attn.c_proj": "o",
            "ln_2": "ffw_norm",
            "mlp.c_fc": "up",
            "mlp.c_proj": "down",
        },
        positions="wpe",
        in_by_out=True,
        buffers=(".attn.bias", ".attn.masked_bias"),
    ),
}


def bare_name(name: str, family: str) -> str:
    """A tensor's name without what some files of the family have before it."""
    for prefix in NAMES[family].prefixes:
        name = name.removeprefix(prefix)
    return name
