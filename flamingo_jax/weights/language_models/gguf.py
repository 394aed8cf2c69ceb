"""A language model from a GGUF file, as parameters of ours.

The frozen language model of the paper (section 2.3) is Chinchilla; those of `gguf_names` can stand
in its place. Undone on the way in are the block quantisation, the order of Llama's query and key
rows, and the 1 that is added to the scales of Gemma's norms. A block's tensors are read when they
are looked at, each time anew (`Unread`): as float32 a model is up to eight times its file, so
`hosts.place` has one parameter of it at a time.
"""

from collections.abc import Callable, Sequence

import numpy as np

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Segment
from flamingo_jax.weights.files.gguf_file import GGUFFile
from flamingo_jax.weights.files.unread import Unread
from flamingo_jax.weights.language_models import gguf_rope, hf_lm
from flamingo_jax.weights.language_models.gguf_names import ARCHITECTURES
from flamingo_jax.weights.language_models.language_model import Tree


def language_model(
    file: GGUFFile,
    config: LanguageModelConfig,  # `gguf_config.read`
    segments: Sequence[Segment] | None = None,  # default: the bare model's
) -> Tree:
    """The subtree `language_model`, float32, layers still in the file.

    Raises BadWeightsFile where a tensor is missing, left over, of a shape the config has not, of a
    format that cannot be dequantised or, when it is read, not of real numbers.
    """
    name = file.metadata["general.architecture"]
    architecture = ARCHITECTURES[name]

    def tensor(name: str) -> Unread:
        found, kind = file.unread(name), name.rpartition(".")[0].rpartition(".")[2]
        if architecture.interleaved and kind in ("attn_q", "attn_k"):
            return found.map(_half_split(config, kind))
        if config.norm_offset and kind.endswith("norm"):
            return found.map(lambda scale: scale - 1)
        return found

    tensors = {n: tensor(n) for n in file.names() if n not in gguf_rope.TENSORS}
    what = str(file.path)
    return hf_lm.from_names(tensors, architecture.names, name, config, segments, what=what)


def half_split_rope(
    weight: np.ndarray,  # f32[num_heads * H, ...], rows of a head as pairs (0, 1), (2, 3), ...
    num_heads: int,
) -> np.ndarray:  # the same, rows of a head as pairs (0, H/2), (1, H/2 + 1), ...
    """Undoes GGUF's row order for rotary positions on interleaved pairs."""
    rows, *rest = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, *rest)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _half_split(config: LanguageModelConfig, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    num_heads = config.num_heads if kind == "attn_q" else config.kv_heads
    return lambda weight: half_split_rope(weight, num_heads)
