"""Finds the downloaded frozen parts for the tests that need them; downloads nothing."""

import pathlib

import pytest

from flamingo_jax.cache import cache_dir

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
EFFICIENTNET_LITE0 = "efficientnet-lite0-57934424.pth"


def find(name: str) -> pathlib.Path:
    """The file of this name anywhere in the project's cache folder; skips where there is none."""
    if found := next(cache_dir().rglob(name), None):
        return found
    pytest.skip(f"{name} is not in the cache folder: run the demo recipe once to fetch it")
