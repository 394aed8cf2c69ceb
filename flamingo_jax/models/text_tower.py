"""BERT: the text tower of the contrastive stage, thrown away after it.

Paper: appendix B.1.3 (a BERT, its outputs averaged over the tokens); the network is Devlin et al.
2019 (arXiv 1810.04805): learned positions, layer norm after each residual sum, exact GELU, biases.
Differs: texts are single ones, so there are no embeddings of token types, and no dropout.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.contrastive_config import TextTowerConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import FeedForward, Norm, Projection, add_rows, embedding_rows
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, Stack, fold

Array = jax.Array


class Attention(nnx.Module):
    """Self-attention of every token to all tokens of its text."""

    def __init__(self, width: int, num_heads: int, *, rngs: Rngs):
        heads = (num_heads, width // num_heads)
        kwargs = {"use_bias": True, "rngs": rngs}
        self.query = Projection([width], heads, ("embed", "heads", None), **kwargs)
        self.key = Projection([width], heads, ("embed", "heads", None), **kwargs)
        self.value = Projection([width], heads, ("embed", "heads", None), **kwargs)
        self.out = Projection(heads, [width], ("heads", None, "embed"), **kwargs)

    def __call__(
        self,
        x: Array,  # [B, T, D]
        mask: Array,  # bool[B, T], False on padding
    ) -> Array:  # [B, T, D]
        seen = jnp.broadcast_to(mask[:, None], (*mask.shape, mask.shape[1]))
        return self.out(attend(self.query(x), self.key(x), self.value(x), seen))


class Block(nnx.Module):
    """Self-attention and feed-forward, each followed by a norm of the sum."""

    def __init__(self, config: TextTowerConfig, *, rngs: Rngs):
        width, eps = config.width, config.norm_eps
        self.attention = Attention(width, config.num_heads, rngs=rngs)
        self.attention_norm = Norm(width, eps=eps)
        self.ffw = FeedForward(width, config.ffw_width, "gelu", use_bias=True, rngs=rngs)
        self.ffw_norm = Norm(width, eps=eps)

    def __call__(self, x: Array, mask: Array) -> Array:  # [B, T, D], bool[B, T]
        x = self.attention_norm(x + self.attention(x, mask))
        return self.ffw_norm(x + self.ffw(x))


class TextTower(nnx.Module):
    """Tokens to one state each, every one of which has seen the whole text."""

    def __init__(self, config: TextTowerConfig, execution: Execution, *, rngs: Rngs):
        self.max_length = config.max_length
        self.token_embedding = embedding_rows(config.vocab_size, config.width, rngs)
        self.position_embedding = embedding_rows(config.max_length, config.width, rngs)
        self.embedding_norm = Norm(config.width, eps=config.norm_eps)
        self.blocks = Stack(
            lambda rngs: Block(config, rngs=rngs), config.num_layers, execution, rngs
        )

    def __call__(
        self,
        tokens: Array,  # i32[B, T], T at most max_length
        mask: Array,  # bool[B, T], False on padding
        dtype: jnp.dtype = jnp.float32,
    ) -> Array:  # dtype[B, T, D]
        length = tokens.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"texts are {length} tokens long: set text.max_length={length}, or "
                f"num_tokens={self.max_length}"
            )
        with jax.named_scope("text_tower"):
            x = self.token_embedding[...][tokens].astype(dtype)
            x = self.embedding_norm(add_rows(x, self.position_embedding[...][:length]))
            x, _ = fold(lambda x, blocks, _: (blocks[0](x, mask), None), x, [self.blocks])
            return x
