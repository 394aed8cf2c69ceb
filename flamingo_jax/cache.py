"""Where downloaded parts, built datasets and cached features lie; standard library only."""

import os
import pathlib

CACHE_VARIABLE = "FLAMINGO_JAX_CACHE"


def cache_dir() -> pathlib.Path:
    """`$FLAMINGO_JAX_CACHE`, or `~/.cache/flamingo_jax`."""
    return pathlib.Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/flamingo_jax").expanduser()
