"""Finds the downloaded frozen parts for the tests that need them; downloads nothing."""

import os
import pathlib

import pytest

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
EFFICIENTNET_LITE0 = "efficientnet-lite0-57934424.pth"


def find(name: str) -> pathlib.Path:
    """The file of this name anywhere in the project's cache folder; skips where there is none."""
    cache = pathlib.Path(os.environ.get("FLAMINGO_JAX_CACHE", "~/.cache/flamingo_jax")).expanduser()
    if found := next(cache.rglob(name), None):
        return found
    pytest.skip(f"{name} is not in the cache folder: run the demo recipe once to fetch it")
