"""Language models as transformers stores them -> the tree of `models.lm`, by tables of names.

Covers LLaMA to 3.2, Mistral, Qwen2 to 3, the first Gemma, OLMo 2, Phi-3 and 4, GPT-NeoX (Pythia,
RedPajama-INCITE), MPT-7B, MPT-1B (`mosaic_gpt`), OPT and GPT-2, and the LLaMA inside IDEFICS.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Segment, plan
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_model import Tree, assemble, block

TIED_HEAD = "head, which repeats the embedding"  # in a report
_SHOWN = 5  # names in a message


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

NAMES: dict[str, Names] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA._replace(
        modules={**_LLAMA.modules, "self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
    ),
    "gemma": _LLAMA,
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


def language_model(
    tensors: Mapping[str, np.ndarray],
    family: str,  # of NAMES, which is `model_type` in config.json
    config: LanguageModelConfig,  # `hf_lm_config.read_config`
    segments: Sequence[Segment] | None = None,  # default: the bare model's
    *,
    what: str = "language model",  # the file or folder, for messages
) -> Tree:
    """The subtree `language_model`, in the tensors' dtype.

    Raises BadWeightsFile where a tensor is missing, left over, of a shape the config has not or,
    when it is read, not of real numbers.
    """
    names = NAMES[family]
    left = {
        bare_name(name, family): tensor
        for name, tensor in tensors.items()
        if not name.startswith(names.beside)
    }

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise BadWeightsFile(f"{what}: no tensor {name}, which every {family} has")
        return left.pop(name)

    def split(name: str, tensor: np.ndarray, parts: list[str]) -> dict[str, np.ndarray]:
        try:
            return _split(tensor, parts, names, config)
        except (ValueError, IndexError) as error:
            raise BadWeightsFile(
                f"{what}: {name} {list(tensor.shape)} does not fit the config: {error}"
            ) from error

    layers = []
    for i in range(config.num_layers):
        neutral = {}
        for module, parts in names.modules.items():
            name = names.layer.format(i) + module
            if parts in ("q_norm", "k_norm") and not config.qk_norm:
                continue
            neutral |= split(f"{name}.weight", take(f"{name}.weight"), parts.split())
            if (bias := left.pop(f"{name}.bias", None)) is not None:
                biases = split(f"{name}.bias", bias, parts.split())
                neutral |= {f"{part}_bias": value for part, value in biases.items()}
        layers.append(block(neutral))
    embedding = take(f"{names.embedding}.weight")
    final_norm = {"scale": take(f"{names.final_norm}.weight")}
    if (bias := left.pop(f"{names.final_norm}.bias", None)) is not None:
        final_norm["bias"] = bias
    positions = names.positions and take(f"{names.positions}.weight")
    if names.first_position:
        positions = np.atleast_1d(positions)[names.first_position :]
    head_name = next((n for n in (names.head, "lm_head") if f"{n}.weight" in left), names.head)
    if config.tied_head:
        head, copy = None, left.pop(f"{head_name}.weight", embedding)
        if not np.array_equal(copy, embedding):
            raise BadWeightsFile(
                f"{what}: {head_name}.weight differs from the embedding it is tied to"
            )
    else:
        head = take(f"{head_name}.weight")
    if odd := sorted(name for name in left if not name.endswith(names.buffers)):
        raise BadWeightsFile(
            f"{what}: {len(odd)} tensors have no place in a {family} model: "
            f"{', '.join(odd[:_SHOWN])}"
        )
    if segments is None:
        segments = plan(config.num_layers, config.num_layers, 0)
    return assemble(
        config,
        segments,
        embedding,
        layers,
        final_norm,
        head,
        position_embedding=positions,
        what=what,
    )


def unneeded(names: Collection[str], family: str, config: LanguageModelConfig) -> dict[str, int]:
    """How many of these tensors `language_model` passes over, by what they are.

    Where the head is tied also how many heads there are, which may be none.
    """
    layout = NAMES[family]
    bare = [bare_name(name, family) for name in names if not name.startswith(layout.beside)]
    heads = (f"{layout.head}.weight", "lm_head.weight")
    tied = {TIED_HEAD: sum(name in heads for name in bare)}
    others = {
        "buffers": sum(name.endswith(layout.buffers) for name in bare),
        "another part's": len(names) - len(bare),
    }
    return (tied if config.tied_head else {}) | {what: n for what, n in others.items() if n}


def bare_name(name: str, family: str) -> str:
    """A tensor's name without what some files of the family have before it."""
    for prefix in NAMES[family].prefixes:
        name = name.removeprefix(prefix)
    return name


def _split(
    tensor: np.ndarray, parts: list[str], names: Names, config: LanguageModelConfig
) -> dict[str, np.ndarray]:
    """Neutral tensors of one kernel, bias or norm: (in, out), fused ones apart, heads split."""
    heads = {"q": config.num_heads, "k": config.kv_heads, "v": config.kv_heads}
    if tensor.ndim == 2 and not names.in_by_out:
        tensor = tensor.T
    lead = tensor.shape[:-1]
    if len(parts) == 3 and names.qkv_by_head:
        by_head = tensor.reshape(*lead, config.num_heads, 3, config.head_dim)
        pieces = [by_head[..., i, :] for i in range(3)]
    else:
        sizes = [heads.get(part, 1) for part in parts]
        ends = np.cumsum(sizes)[:-1] * (tensor.shape[-1] // sum(sizes))
        pieces = np.split(tensor, ends, axis=-1)
    neutral = {}
    for part, piece in zip(parts, pieces, strict=True):
        if part in heads:
            piece = piece.reshape(*lead, heads[part], config.head_dim)
        elif part == "o" and piece.ndim == 2:
            piece = piece.reshape(config.num_heads, config.head_dim, -1)
        neutral[part] = piece
    return neutral
