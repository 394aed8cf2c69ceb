"""Language models as transformers stores them -> the tree of `models.lm`, by tables of names.

`from_names` takes a table of any origin, and tensors that are still unread (GGUF's).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Segment, plan
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.unread import Unread
from flamingo_jax.weights.language_models.hf_lm_names import NAMES, Names, bare_name
from flamingo_jax.weights.language_models.language_model import Tree, assemble, block

TIED_HEAD = "head, which repeats the embedding"  # in a report
_SHOWN = 5  # names in a message


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
    bare = {
        bare_name(name, family): tensor
        for name, tensor in tensors.items()
        if not name.startswith(names.beside)
    }
    return from_names(bare, names, family, config, segments, what=what)


def from_names(
    tensors: Mapping[str, np.ndarray | Unread],
    names: Names,
    family: str,  # for messages
    config: LanguageModelConfig,
    segments: Sequence[Segment] | None = None,  # default: the bare model's
    *,
    what: str = "language model",  # the file or folder, for messages
) -> Tree:
    """As `language_model`, of tensors whose names are `names`' and nothing more.

    Those of layers that are unread stay so, until the layers are looked at.
    """
    left = dict(tensors)

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise BadWeightsFile(f"{what}: no tensor {name}, which every {family} has")
        return left.pop(name)

    def split(name: str, tensor: np.ndarray | Unread, parts: list[str]) -> Tree:
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
    embedding = np.asarray(take(f"{names.embedding}.weight"))
    final_norm = {"scale": np.asarray(take(f"{names.final_norm}.weight"))}
    if (bias := left.pop(f"{names.final_norm}.bias", None)) is not None:
        final_norm["bias"] = np.asarray(bias)
    positions = names.positions and np.asarray(take(f"{names.positions}.weight"))
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
        head = np.asarray(take(f"{head_name}.weight"))
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


def _split(
    tensor: np.ndarray | Unread, parts: list[str], names: Names, config: LanguageModelConfig
) -> Tree:
    """Neutral tensors of one kernel, bias or norm: (in, out), fused ones apart, heads split."""
    if isinstance(tensor, Unread):
        return tensor.split(lambda array: _split(array, parts, names, config))
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
