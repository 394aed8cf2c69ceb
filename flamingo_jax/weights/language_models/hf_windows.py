"""Which layers have a sliding window, by a `config.json` of transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.weights.errors import BadWeightsFile

SLIDING, FULL = "sliding_attention", "full_attention"  # kinds of layers
WINDOW = 4096  # of tokens, in transformers where a file gives none


def fields(
    hf: Mapping[str, Any],
    kinds: Sequence[str],  # of all layers, where the file has no `layer_types`
) -> dict[str, Any]:
    """`sliding_window` and `global_layers`; nothing where no layer has a window."""
    kinds, num_layers = hf.get("layer_types") or kinds, hf["num_hidden_layers"]
    if len(kinds) != num_layers or not {*kinds} <= {SLIDING, FULL}:
        raise BadWeightsFile(
            f"config.json: layer_types={kinds!r} is not supported, only {num_layers} of "
            f"{SLIDING!r} and {FULL!r} are"
        )
    whole = tuple(i for i, kind in enumerate(kinds) if kind == FULL)
    window = hf.get("sliding_window", WINDOW)
    if window is None or len(whole) == num_layers:
        return {}
    return {"sliding_window": window, "global_layers": whole}
