"""The flag `--mesh`: which devices share a finished model."""

import re

from absl import flags

from flamingo_jax.core import partition

MESH = flags.DEFINE_string(
    "mesh",
    None,
    "Devices that share the model, as data=2,tensor=4: tensor cuts it, data copies it for more "
    "prompts at a time. By default all of them, and tensor as small as memory allows.",
)
_AXIS = re.compile(rf"({'|'.join(partition.MESH_AXES)})=(-1|\d+)")


def sizes(text: str) -> dict[str, int]:
    """Axes of a mesh by name, `data=2,tensor=4`; ValueError for anything else."""
    found: dict[str, int] = {}
    for part in text.split(","):
        axis = _AXIS.fullmatch(part.strip())
        if axis is None or axis[1] in found:
            raise ValueError(
                f"--mesh={text}: write axes of {', '.join(partition.MESH_AXES)}, each once and "
                "with a size, as data=2,tensor=4; -1 is what the others leave"
            )
        found[axis[1]] = int(axis[2])
    return found
