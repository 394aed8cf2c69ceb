"""A Llama-type language model from a GGUF file, as plain arrays in (in, out) layout.

The frozen language model of the paper (section 2.3) is Chinchilla; any Llama-type model with RMS
norm, rotary positions, SwiGLU and no biases can stand in its place. Two things are undone on the
way in: the block quantisation, and the order of the query and key rows, which GGUF permutes for
rotary embeddings on interleaved pairs where ours rotate the two halves of a head. A block's
matrices are read when they are looked at, each time anew (`Unread`): as float32 a model is up to
eight times its file.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Segment
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import gguf_file
from flamingo_jax.weights.files.unread import Unread
from flamingo_jax.weights.language_models.language_model import Tree, assemble, block

ROPE_FACTORS = "rope_freqs.weight"  # [H / 2], by which each pair's frequency is divided


class LlamaLayer(TypedDict):
    """One decoder block; all float32. N query heads, K key/value heads of H numbers."""

    attn_norm: np.ndarray  # [D]
    q: Unread  # [D, N, H]
    k: Unread  # [D, K, H]
    v: Unread  # [D, K, H]
    o: Unread  # [N, H, D]
    ffw_norm: np.ndarray  # [D]
    gate: Unread  # [D, F]
    up: Unread  # [D, F]
    down: Unread  # [F, D]


class LlamaWeights(TypedDict):
    """A whole model; `head` only where it is not the embedding itself."""

    embedding: np.ndarray  # [V, D]
    final_norm: np.ndarray  # [D]
    layers: list[LlamaLayer]
    head: NotRequired[np.ndarray]  # [V, D]


def load_llama(path: str | pathlib.Path) -> tuple[LanguageModelConfig, LlamaWeights]:
    """The model in a GGUF file. Reading all of SmolLM2-135M takes 1 s and 0.6 GB.

    Raises BadWeightsFile when the file is no GGUF, is cut short, holds another architecture, or
    when a tensor or a piece of metadata is missing, left over, of the wrong shape or of a format
    that cannot be dequantised.
    """
    return from_file(gguf_file.read(path))


def from_file(file: gguf_file.GGUFFile) -> tuple[LanguageModelConfig, LlamaWeights]:
    """As `load_llama`, from a file whose metadata are wanted too (the tokenizer is in there)."""
    lm = config(file)
    d, n, k, h = lm.width, lm.num_heads, lm.kv_heads, lm.head_dim
    f, v = lm.ffw_width, lm.vocab_size
    taken = {ROPE_FACTORS}

    def get(name: str, *shape: int) -> np.ndarray:
        taken.add(f"{name}.weight")
        return file.tensor(f"{name}.weight", shape)

    def later(
        name: str,
        rows: int,
        columns: int,
        *shape: int,  # of the transposed matrix
        order: Callable[[np.ndarray], np.ndarray] = lambda a: a,  # of its rows
    ) -> Unread:
        taken.add(f"{name}.weight")
        file.check(f"{name}.weight", (rows, columns))
        read = lambda: order(file.tensor(f"{name}.weight", (rows, columns))).T.reshape(shape)  # noqa: E731
        return Unread(shape, read)

    layers: list[LlamaLayer] = []
    for i in range(lm.num_layers):
        layers.append(
            {
                "attn_norm": get(f"blk.{i}.attn_norm", d),
                "q": later(f"blk.{i}.attn_q", n * h, d, d, n, h, order=_half_split(n)),
                "k": later(f"blk.{i}.attn_k", k * h, d, d, k, h, order=_half_split(k)),
                "v": later(f"blk.{i}.attn_v", k * h, d, d, k, h),
                "o": later(f"blk.{i}.attn_output", d, n * h, n, h, d),
                "ffw_norm": get(f"blk.{i}.ffn_norm", d),
                "gate": later(f"blk.{i}.ffn_gate", f, d, d, f),
                "up": later(f"blk.{i}.ffn_up", f, d, d, f),
                "down": later(f"blk.{i}.ffn_down", d, f, f, d),
            }
        )
    weights: LlamaWeights = {
        "embedding": get("token_embd", v, d),
        "final_norm": get("output_norm", d),
        "layers": layers,
    }
    if not lm.tied_head:
        weights["head"] = get("output", v, d)
    if left := [name for name in file.names() if name not in taken]:
        raise BadWeightsFile(
            f"{file.path}: {len(left)} tensors have no place in a Llama-type model, first "
            f"{left[0]!r}: biases, experts and query or key norms are not supported"
        )
    return lm, weights


def language_model(
    lm: LanguageModelConfig,
    weights: LlamaWeights,
    segments: Sequence[Segment],
    what: str,  # the file, for messages
) -> Tree:
    """The subtree `language_model`; reading a number that is not finite is a BadWeightsFile."""
    layers = [block(layer) for layer in weights["layers"]]
    norm = {"scale": weights["final_norm"]}
    head = weights.get("head")
    return assemble(lm, segments, weights["embedding"], layers, norm, head, what=what)


def half_split_rope(
    weight: np.ndarray,  # f32[num_heads * H, D], rows of a head as pairs (0, 1), (2, 3), ...
    num_heads: int,
) -> np.ndarray:  # f32[num_heads * H, D], rows of a head as pairs (0, H/2), (1, H/2 + 1), ...
    """Undoes GGUF's row order for rotary positions on interleaved pairs."""
    rows, width = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def _half_split(num_heads: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weight: half_split_rope(weight, num_heads)


def config(file: gguf_file.GGUFFile) -> LanguageModelConfig:
    """What the metadata say; BadWeightsFile for another architecture or a setting ours has not."""
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise BadWeightsFile(
            f"{file.path}: architecture {architecture!r:.60}; only 'llama' can be imported"
        )

    def get(name: str, default: int | float | None = None) -> int | float:
        value = file.metadata.get(f"llama.{name}", default)
        if type(value) not in (int, float) or not value > 0:
            raise BadWeightsFile(f"{file.path}: metadata llama.{name} is {value!r:.40}, want > 0")
        return value

    num_heads, width = int(get("attention.head_count")), int(get("embedding_length"))
    head_dim = int(get("attention.key_length", width // num_heads))
    rotated = get("rope.dimension_count", head_dim)
    if rotated != head_dim or head_dim % 2:
        raise BadWeightsFile(
            f"{file.path}: rotary positions on {rotated} of {head_dim} numbers of a head; only on "
            f"all of an even number is supported"
        )
    if (scaling := file.metadata.get("llama.rope.scaling.type", "none")) != "none":
        raise BadWeightsFile(f"{file.path}: rotary scaling {scaling!r:.40} is not supported")
    if ROPE_FACTORS in file:
        factors = file.tensor(ROPE_FACTORS, (head_dim // 2,))
        if (factors != 1).any():
            raise BadWeightsFile(
                f"{file.path}: rotary scaling by {ROPE_FACTORS} of {factors.min():g} to "
                f"{factors.max():g} (Llama 3.1 and later) is not supported: use a file where all "
                f"are 1, or one without it"
            )
    tokens = file.metadata.get("tokenizer.ggml.tokens", [])
    fields = {
        "vocab_size": int(get("vocab_size", len(tokens))),
        "num_layers": int(get("block_count")),
        "width": width,
        "num_heads": num_heads,
        "head_dim": head_dim,
        "ffw_width": int(get("feed_forward_length")),
        "num_kv_heads": int(get("attention.head_count_kv", num_heads)),
        # Stored as float32: 1e-5 comes back as 9.999999747e-06.
        "norm_eps": float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_base": float(get("rope.freq_base", 10_000.0)),
        "tied_head": "output.weight" not in file,
        "max_length": int(get("context_length")),
    }
    try:
        return LanguageModelConfig(**fields)
    except ValueError as error:
        raise BadWeightsFile(f"{file.path}: {error}") from error
