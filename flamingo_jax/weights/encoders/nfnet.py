"""Published NFNet weights -> parameters of `models.nfnet`.

Two sources of the same networks: DeepMind's Haiku tree, module name to parameter name to array, and
timm's `dm_nfnet_f*` state dict. Blocks after the first of a stage are stacked. The ImageNet
classifier is left out. None of these is the contrastively trained F6 of the paper.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from flamingo_jax.core import params
from flamingo_jax.models.nfnet import VARIANTS, NFNet
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.name_table import Path, Source, Tree, take

Convert = Callable[[np.ndarray], np.ndarray]


class Names(NamedTuple):
    """How one publisher names and lays out the parameters; keys of the tables are our names."""

    stem: Callable[[int], str]  # of convolution 0 to 3
    block: Callable[[int, int, int], str]  # of stage, block in the stage, block in all
    modules: dict[str, str]  # of a block
    final_conv: str
    conv: dict[str, tuple[str, Convert]]  # suffix, and what makes it ours
    linear: dict[str, tuple[str, Convert]]
    skip_gain: str
    classifier: tuple[str, str]


def _same(a: np.ndarray) -> np.ndarray:
    return a


HAIKU = Names(
    stem=lambda i: f"NFNet/~/stem_conv{i}",
    block=lambda stage, i, n: f"NFNet/~/nf_block_{n}" if n else "NFNet/~/nf_block",
    modules={
        "conv0": "/~/conv0",
        "conv1": "/~/conv1",
        "conv1b": "/~/conv1b",
        "conv2": "/~/conv2",
        "conv_shortcut": "/~/conv_shortcut",
        "linear": "/~/squeeze_excite/~/linear",
        "linear_1": "/~/squeeze_excite/~/linear_1",
    },
    final_conv="NFNet/~/final_conv",
    conv={"kernel": (":w", _same), "gain": (":gain", _same), "bias": (":bias", _same)},
    linear={"kernel": (":w", _same), "bias": (":b", _same)},
    skip_gain=":skip_gain",
    classifier=("NFNet/~/linear:w", "NFNet/~/linear:b"),
)

TIMM = Names(
    stem=lambda i: f"stem.conv{i + 1}",
    block=lambda stage, i, n: f"stages.{stage}.{i}",
    modules={
        "conv0": ".conv1",
        "conv1": ".conv2",
        "conv1b": ".conv2b",
        "conv2": ".conv3",
        "conv_shortcut": ".downsample.conv",
        "linear": ".attn_last.fc1",
        "linear_1": ".attn_last.fc2",
    },
    final_conv="final_conv",
    conv={
        "kernel": (".weight", lambda a: a.transpose(2, 3, 1, 0)),  # OIHW to HWIO
        "gain": (".gain", np.ravel),  # [O, 1, 1, 1]
        "bias": (".bias", _same),
    },
    linear={
        "kernel": (".weight", lambda a: a[:, :, 0, 0].T),  # a 1x1 convolution there
        "bias": (".bias", _same),
    },
    skip_gain=".skipinit_gain",
    classifier=("head.fc.weight", "head.fc.bias"),
)


def variant(names: Iterable[str], layout: Names) -> str:
    """Which variant has as many blocks as there are in these names; BadWeightsFile for none."""
    num_blocks = sum(name.endswith(layout.skip_gain) for name in names)
    fits = [n for n, v in VARIANTS.items() if sum(v.depths) == num_blocks]
    if not fits:
        raise BadWeightsFile(
            f"{num_blocks} tensors have names that end in {layout.skip_gain}, one a block: none of "
            f"the NFNets {list(VARIANTS)} has as many"
        )
    return fits[0]


def flattened(tree: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """DeepMind's tree with a parameter's name as "module:parameter"."""
    return {f"{module}:{name}": a for module, row in tree.items() for name, a in row.items()}


def from_haiku(tree: Mapping[str, Mapping[str, np.ndarray]], variant: str) -> Tree:
    """Parameters of NFNet(variant), scanned, from DeepMind's tree.

    Raises BadWeightsFile where names or shapes are not the variant's; a parameter is named
    "module:parameter" there.
    """
    return _take(flattened(tree), HAIKU, variant, "Haiku weights")


def from_timm(state: Mapping[str, np.ndarray], variant: str) -> Tree:
    """Parameters of NFNet(variant), scanned, from timm's `dm_nfnet_f*` state dict.

    Raises BadWeightsFile where names or shapes are not the variant's.
    """
    return _take(state, TIMM, variant, "timm weights")


def _take(tensors: Mapping[str, np.ndarray], names: Names, variant: str, what: str) -> Tree:
    _, want, _ = params.abstract(lambda rngs: NFNet(variant, rngs=rngs))
    table = _table(names, VARIANTS[variant].depths)
    what = f"{what} of NFNet {variant}"
    return take(tensors, table, want, ignore=names.classifier, what=what)


def _table(names: Names, depths: tuple[int, ...]) -> dict[Path, Source | list[Source]]:
    """Every parameter's path and source; a list of sources for those that are stacked."""
    table: dict[Path, Source | list[Source]] = {
        **_leaves(("final_conv",), names.final_conv, names.conv)
    }
    for i in range(4):
        table |= _leaves((f"stem_conv{i}",), names.stem(i), names.conv)
    start = 0
    for stage, depth in enumerate(depths):
        blocks = [_block(names, names.block(stage, i, start + i)) for i in range(depth)]
        table |= {(f"stage_{stage}", "first", *path): s for path, s in blocks[0].items()}
        for path in blocks[1] if depth > 1 else ():
            if path[0] != "conv_shortcut":
                stacked = [block[path] for block in blocks[1:]]
                table[(f"stage_{stage}", "rest", "layers", *path)] = stacked
        start += depth
    return table


def _block(names: Names, prefix: str) -> dict[Path, Source]:
    """Paths inside a block, as if every block had a projection on its shortcut."""
    table = {("skip_gain",): Source(prefix + names.skip_gain, _same)}
    for ours, theirs in names.modules.items():
        is_linear = ours.startswith("linear")
        path = ("squeeze_excite", ours) if is_linear else (ours,)
        table |= _leaves(path, prefix + theirs, names.linear if is_linear else names.conv)
    return table


def _leaves(path: Path, module: str, suffixes: dict[str, tuple[str, Convert]]) -> dict:
    return {
        (*path, leaf): Source(module + suffix, convert)
        for leaf, (suffix, convert) in suffixes.items()
    }
