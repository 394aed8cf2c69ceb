"""Grafting: trained layers on top of the frozen language model, none inside it.

Paper: section 3.3, Table 3, row iv (after VC-GPT, Luo et al. 2022), and v1's description: "a stack
of interleaved self-attention and cross-attention layers that take the frozen LM output", learnt
from scratch; logits through the frozen output embedding. A layer is a block of the language model's
shape with cross-attention between its two halves. How many there are the paper does not say; 18 at
the width of 2048 make its 3.3B parameters.
"""

import jax
from flax import nnx

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, Segment
from flamingo_jax.models.lm import Inserted, make_blocks, walk
from flamingo_jax.models.lm_block import Cache, Context, make_norm

Array = jax.Array


class Graft(nnx.Module):
    """The trained self-attention and feed-forward layers; cross-attention is inserted in them."""

    def __init__(
        self,
        config: LanguageModelConfig,
        segment: Segment,
        execution: Execution,
        *,
        rngs: Rngs,
    ):
        self.segment = segment
        self.blocks = make_blocks(config, (segment,), execution, rngs)
        self.norm = make_norm(config, config.width)

    def __call__(
        self,
        x: Array,  # [B, T, D], the language model's output
        context: Context,
        cache: dict[str, Cache] | None,
        inserted: Inserted,
    ) -> tuple[Array, dict[str, Cache] | None]:
        """Hidden states [B, T, D] for the logits, and the cache with these tokens in it."""
        x, cache = walk((self.segment,), self.blocks, x, context, cache, inserted)
        return self.norm(x), cache
