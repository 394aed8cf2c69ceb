"""A setting of transformers' `config.json` read alike for several families of language models.

One that the model here has not is refused by name, not passed over.
"""

from collections.abc import Mapping
from typing import Any

from flamingo_jax.weights.errors import BadWeightsFile

Json = Mapping[str, Any]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


def refuse(hf: Json, **supported: Any) -> None:
    """BadWeightsFile for a key that is there with another value than the one it may have."""
    for key, value in supported.items():
        if hf.get(key, value) != value:
            raise BadWeightsFile(
                f"config.json: {key}={hf[key]!r} is not supported, only {value!r} is"
            )


def activation(name: str) -> str:
    """Ours of theirs; BadWeightsFile for one that is not here."""
    if name not in _ACTIVATIONS:
        raise BadWeightsFile(f"config.json: activation {name!r}: use one of {list(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def shape(hf: Json, width: str, layers: str, heads: str) -> dict[str, Any]:
    """The sizes that all families have, three of them under these names."""
    return {
        "vocab_size": hf["vocab_size"],
        "num_layers": hf[layers],
        "width": hf[width],
        "num_heads": hf[heads],
        "head_dim": hf.get("head_dim") or hf[width] // hf[heads],
    }
