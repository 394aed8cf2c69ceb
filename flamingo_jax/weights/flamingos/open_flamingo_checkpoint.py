"""The tensors of an OpenFlamingo checkpoint, under names that no wrapper and no release changes."""

import pathlib
import re
from typing import NamedTuple

import numpy as np

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files

_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.")
_COPIES = ("lang_encoder.old_decoder_blocks.", "vision_encoder.")  # where nothing was filtered
_GATED = re.compile(r"(.+)\.(\d+)\.gated_cross_attn_layer\.(.+)")
_GATED_V1 = re.compile(r"()gated_cross_attn_layers\.(\d+)\.(.+)")


class Checkpoint(NamedTuple):
    """A file's tensors, and what their names say of the language model."""

    path: pathlib.Path
    tensors: dict[str, np.ndarray]  # perceiver.*, gated.<layer>.*, lm.*
    layers: str  # where the language model's layers lie; "" where the old layout does not say
    num_copies: int  # tensors left out here: a second time under another name, and the image tower

    @property
    def gated(self) -> list[int]:
        """Numbers of the language model's layers that have a gated block before them."""
        return sorted({int(n.split(".")[1]) for n in self.tensors if n.startswith("gated.")})

    @property
    def width(self) -> int:
        """Of the language model."""
        return self.shape(f"gated.{self.gated[0]}.attn.to_q.weight")[1]

    def shape(self, name: str) -> tuple[int, ...]:
        """BadWeightsFile where there is no such matrix."""
        if name not in self.tensors or self.tensors[name].ndim != 2:
            raise BadWeightsFile(
                f"{self.path}: no matrix {name}: fetch the file again, or give one that "
                "OpenFlamingo wrote"
            )
        return self.tensors[name].shape


def read(path: pathlib.Path) -> Checkpoint:
    """The checkpoint at `path`; BadWeightsFile for one of something else."""
    named = [(_unwrapped(name), a) for name, a in checkpoint_files.tensors(path).items()]
    is_old = not any(_GATED.fullmatch(name) for name, _ in named)
    tensors, layers, num_copies = {}, set(), 0
    for name, tensor in named:
        inner = name.removeprefix("lang_encoder.")
        if name.startswith(_COPIES) or (not is_old and _GATED_V1.fullmatch(inner)):
            num_copies += 1
            continue
        if found := _GATED.fullmatch(inner) or _GATED_V1.fullmatch(inner):
            layers.add(found[1])
            name = f"gated.{found[2]}.{found[3]}"
        elif inner != name:
            name = f"lm.{inner}"
        if name in tensors:
            raise BadWeightsFile(f"{path} has tensor {name} twice: give a file of one model")
        tensors[name] = tensor
    if len(layers) != 1 or "perceiver.latents" not in tensors:
        raise BadWeightsFile(
            f"{path} is no checkpoint of OpenFlamingo: want perceiver.latents and "
            "gated_cross_attn_layer tensors, of one language model, in it"
        )
    return Checkpoint(path, tensors, layers.pop(), num_copies)


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
