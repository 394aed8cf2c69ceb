"""Next-token loss, with logits only where the loss is and never all of them at once.

Paper, equation 2: the negative log-likelihood of the text, a weighted sum over datasets; here the
mean over a batch's target tokens (a padded or masked token is no target).

The gradient to the hidden states is computed in the same pass as the loss, one chunk of tokens at a
time: no [B, T, V] array, and no second look at the logits in the backward pass. Each shard's
targets are moved to its front, so that a chunk without any target is skipped; tokens never leave
their shard, so nothing of this crosses devices when the batch is cut among them.
"""

import functools

import jax
import jax.numpy as jnp

from flamingo_jax.core.partition import constrain
from flamingo_jax.core.softcap import softcap

Array = jax.Array

CHUNK_TOKENS = 512


def next_token_targets(tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
    """Targets i32[B, T] and weights f32[B, T] of column t, which predicts token t + 1."""
    targets = jnp.roll(tokens, -1, axis=1)
    weights = jnp.roll(loss_mask, -1, axis=1).at[:, -1].set(False)
    return targets, weights.astype(jnp.float32)


def next_token_loss(
    hidden: Array,  # [B, T, D]
    frozen_rows: Array,  # [V, D], the frozen output embedding; gets no gradient
    new_rows: Array,  # [n, D], the trained rows beyond it
    targets: Array,  # i32[B, T], the token after each
    weights: Array,  # f32[B, T], what its loss counts; 0 where it does not
    *,
    cap: float | None = None,  # bound of the scores (`core.softcap`)
    shards: int = 1,  # among which B is cut
    chunk_tokens: int = CHUNK_TOKENS,  # of a shard, whose scores are held at a time; at most
) -> tuple[Array, Array]:
    """Negative log-likelihoods in nats: their weighted sum, f32[], and each, f32[B, T].

    The gradient is that of the sum alone. What does not count may be 0.
    """
    b, t = targets.shape
    num = b * t // shards
    size = chunk_size(num, chunk_tokens)

    def of_shards(x: Array) -> Array:  # [B, T, ...] to [shards, tokens, ...]
        x = x.reshape(shards, num, *x.shape[2:])
        return constrain(x, "batch", *[None] * (x.ndim - 1))

    hidden, targets, weights = map(of_shards, (hidden, targets, weights))
    total, each = _nll(hidden, new_rows, frozen_rows, targets, weights, size, cap)
    return total, each.reshape(b, t)


def chunk_size(num_tokens: int, limit: int = CHUNK_TOKENS) -> int:
    """Tokens of a chunk: a quarter of them all, so that there are chunks to skip, but not few.

    A product with fewer than 64 rows waits for the vocabulary's rows to come from memory.
    """
    return min(limit, num_tokens, max(64, -(-num_tokens // 4)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _nll(hidden, new_rows, frozen_rows, targets, weights, size, cap):
    """Weighted sum of token losses, differentiable in hidden and new_rows only, and the losses."""
    return _scan_chunks(hidden, new_rows, frozen_rows, targets, weights, size, cap, grads=False)[0]


def _forward(hidden, new_rows, frozen_rows, targets, weights, size, cap):
    return _scan_chunks(hidden, new_rows, frozen_rows, targets, weights, size, cap, grads=True)


def _backward(size, cap, grads, cotangent):
    del size, cap
    d_hidden, d_new = grads
    cotangent, _ = cotangent
    return d_hidden * cotangent.astype(d_hidden.dtype), d_new * cotangent, None, None, None


_nll.defvjp(_forward, _backward)


def _scan_chunks(hidden, new_rows, frozen_rows, targets, weights, size, cap, *, grads):
    s, num, _ = hidden.shape
    order = jnp.argsort(weights == 0, axis=1, stable=True)  # a shard's targets come first
    num_chunks = -(-num // size)

    def chunks(x):  # [S, tokens, ...] to [chunks, S, size, ...]
        x = jnp.take_along_axis(x, order.reshape(s, num, *[1] * (x.ndim - 2)), axis=1)
        x = jnp.pad(x, [(0, 0), (0, num_chunks * size - num)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(s, num_chunks, size, *x.shape[2:]), 1, 0)

    frozen, new = frozen_rows.astype(hidden.dtype), new_rows.astype(hidden.dtype)
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def work(carry, xs):
        total, d_new = carry
        h, target, weight = xs
        scores, new_scores = (softcap(dot("bcd,vd->bcv", h, rows), cap) for rows in (frozen, new))
        top = jnp.maximum(scores.max(-1, keepdims=True), new_scores.max(-1, keepdims=True))
        odds, new_odds = jnp.exp(scores - top), jnp.exp(new_scores - top)
        z = odds.sum(-1, keepdims=True) + new_odds.sum(-1, keepdims=True)
        vocab = frozen.shape[0]
        is_new = (target >= vocab)[..., None]
        old_target = jnp.minimum(target, vocab - 1)[..., None]
        new_target = jnp.maximum(target - vocab, 0)[..., None]
        right = jnp.where(
            is_new,
            jnp.take_along_axis(new_scores, new_target, axis=-1),
            jnp.take_along_axis(scores, old_target, axis=-1),
        )
        weight = weight[..., None]
        nll = jnp.log(z) + top - right
        total += (weight * nll).sum()
        nll = nll[..., 0]
        if not grads:
            return (total, d_new), (nll, None)
        hit = jax.nn.one_hot(jnp.where(is_new, new_target, -1)[..., 0], new.shape[0])
        error_new = (new_odds / z - hit) * weight
        old_weight = jnp.where(is_new, 0.0, weight)
        if cap is not None:  # the slope of its tanh
            odds *= 1 - (scores / cap) ** 2
            error_new *= 1 - (new_scores / cap) ** 2
            old_weight *= 1 - (right / cap) ** 2
        error_new = error_new.astype(h.dtype)
        d_h = dot("bcv,vd->bcd", odds.astype(h.dtype), frozen) * (weight / z)
        d_h += dot("bcv,vd->bcd", error_new, new)
        d_h -= old_weight * frozen[old_target[..., 0]].astype(jnp.float32)
        return (total, d_new + dot("bcv,bcd->vd", error_new, h)), (nll, d_h.astype(h.dtype))

    def skip(carry, xs):
        nothing = jnp.zeros(xs[1].shape, jnp.float32), jnp.zeros_like(xs[0]) if grads else None
        return carry, nothing

    def one(carry, xs):
        return jax.lax.cond((xs[2] != 0).any(), work, skip, carry, xs)

    start = (jnp.zeros((), jnp.float32), jnp.zeros(new_rows.shape, jnp.float32))
    (total, d_new), found = jax.lax.scan(
        one, start, (chunks(hidden), chunks(targets), chunks(weights))
    )
    back = jnp.argsort(order, axis=1)

    def in_order(x):  # [chunks, S, size, ...] to [S, tokens, ...], where they came from
        x = jnp.moveaxis(x, 0, 1).reshape(s, num_chunks * size, *x.shape[3:])[:, :num]
        return jnp.take_along_axis(x, back.reshape(s, num, *[1] * (x.ndim - 2)), axis=1)

    nll, d_hidden = jax.tree.map(in_order, found)
    return (total, nll), (d_hidden, d_new)
