"""The parameters that a run begins with, on their devices.

Frozen ones come from their sources, also where they are trained from there on; trained ones are
fresh, or those of a finished model.
"""

from typing import Any

from experiments.frozen import feature_cache, frozen_features
from experiments.training import datasets, processes
from experiments.training.run_setup import Setup
from flamingo_jax import model_directory
from flamingo_jax.core import hosts
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import unroll
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import new_tokens

Tree = Any


def make(
    config: Any, setup: Setup, tokenizer: Tokenizer
) -> tuple[Tree, Tree, feature_cache.FeatureCache | None]:
    """(trainable, frozen, cached features where the recipe wants them)."""
    card, (where_trainable, where_frozen) = setup.card, setup.where
    scanned = setup.execution.scan  # as `frozen_params` makes them
    in_place = scanned and not config.data.cache_features  # which each process encodes for itself
    also = card.config.trained
    places = where_frozen | {part: where_trainable[part] for part in also}
    init_from = setup.init_from
    finished = model_directory.trained_params(init_from) if init_from else {}
    held = model_directory.read_card(init_from).config.trained if finished else ()
    frozen = model_directory.frozen_params(card, places if in_place else None, held)
    frozen |= {part: finished.pop(part) for part in held}
    features = None
    if config.data.cache_features:
        with processes.one_at_a_time(datasets.local_dir(config)):
            features, frozen = frozen_features.prepare(config, card, frozen, tokenizer)
    if not finished:
        fresh = {name: where for name, where in where_trainable.items() if name not in also}
        trainable = params_lib.init(setup.make, config.seed, params_lib.is_trainable, fresh)
        trainable["new_tokens"] = new_tokens.initialise(
            trainable["new_tokens"], frozen["language_model"], config.seed
        )
    else:
        trainable, aligned = params_lib.split(finished)
        frozen = frozen | {"vision": frozen["vision"] | aligned.get("vision", {})}
        trainable = trainable if scanned else unroll(trainable)
    trained_along, frozen = params_lib.split(frozen if scanned else unroll(frozen), also)
    trainable = hosts.place(trainable | trained_along, where_trainable, card.dtypes.trainable)
    frozen = hosts.place(frozen, where_frozen, card.dtypes.frozen)
    return trainable, frozen, features
