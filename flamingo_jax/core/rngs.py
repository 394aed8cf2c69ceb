"""Keys for the weights of a module that is being made.

They are those of `nnx.Rngs`, but the count of draws is a number of Python's. `nnx.Rngs` counts in
an array, a tracer where a module is made under `jit` or `eval_shape`, as all are here. Of a tracer
it asks the sharding with every draw, for whose refusal JAX looks through all that was traced so far
(jax 0.10.2, flax 0.12.8).
"""

import jax


class Rngs:
    """Hands out one key after the other, a function of the seed (or key) and of how many went."""

    def __init__(self, seed: int | jax.Array):
        self._key = jax.random.key(seed) if isinstance(seed, int) else seed
        self._drawn = 0

    def params(self) -> jax.Array:
        """The next key."""
        key = jax.random.fold_in(self._key, self._drawn)
        self._drawn += 1
        return key
