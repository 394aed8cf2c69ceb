"""The keys that weights are drawn from."""

import jax
import numpy as np
from flax import nnx

from flamingo_jax.core.rngs import Rngs


def _drawn(make) -> np.ndarray:
    rngs = make()
    return np.stack([jax.random.key_data(rngs.params()) for _ in range(3)])


def test_keys_are_those_of_nnx_in_a_trace_too():
    for seed in (0, 2**31):
        ours = _drawn(lambda seed=seed: Rngs(seed))
        np.testing.assert_array_equal(ours, _drawn(lambda seed=seed: nnx.Rngs(seed)))
        key = jax.random.key(seed)
        np.testing.assert_array_equal(ours, _drawn(lambda key=key: Rngs(key)))
    traced = jax.jit(lambda key: [jax.random.key_data(k) for k in _three(Rngs(key))])(key)
    np.testing.assert_array_equal(traced, ours)


def _three(rngs: Rngs) -> list[jax.Array]:
    return [rngs.params() for _ in range(3)]
