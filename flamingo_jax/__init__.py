"""Flamingo (Alayrac et al. 2022) in JAX: a visual language model that learns from a few examples.

>>> model = flamingo_jax.load("runs/demo")
>>> model.generate([[{"image": "cat.png"}, {"text": "A picture of"}]])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flamingo_jax.model_directory import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str):
    """`load` is imported when it is first used, so that importing a leaf stays light."""
    if name == "load":
        from flamingo_jax.model_directory import load

        return load
    raise AttributeError(f"module 'flamingo_jax' has no attribute {name!r}")
