"""Next-token loss, with logits only where the loss is and never all of them at once.

Paper, equation 2: the negative log-likelihood of the text, a weighted sum over datasets; here the
mean over a batch's target tokens (a padded or masked token is no target).

The gradient to the hidden states is computed in the same pass as the loss, one chunk of columns at
a time: no [B, T, V] array, and no second look at the logits in the backward pass. Each row's
targets are moved to its front, so that a chunk of columns without any target is skipped; rows never
mix, so nothing of this crosses devices when the batch is sharded.
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array


def next_token_targets(tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
    """Targets i32[B, T] and weights f32[B, T] of column t, which predicts token t + 1."""
    targets = jnp.roll(tokens, -1, axis=1)
    weights = jnp.roll(loss_mask, -1, axis=1).at[:, -1].set(False)
    return targets, weights.astype(jnp.float32)


def next_token_loss(
    hidden: Array,  # [B, T, D]
    frozen_rows: Array,  # [V, D], the frozen output embedding; gets no gradient
    new_rows: Array,  # [n, D], the trained rows beyond it
    tokens: Array,  # i32[B, T]
    loss_mask: Array,  # bool[B, T], True where the prediction of this token counts
    *,
    chunk_tokens: int = 512,
) -> tuple[Array, Array]:
    """(sum of negative log-likelihoods in nats, number of targets), both f32 scalars."""
    targets, weights = next_token_targets(tokens, loss_mask)
    columns = min(max(chunk_tokens // tokens.shape[0], 1), tokens.shape[1])
    total = _nll(hidden, new_rows, frozen_rows, targets, weights, columns)
    return total, weights.sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _nll(hidden, new_rows, frozen_rows, targets, weights, columns):
    """Weighted sum of token losses; differentiable in hidden and new_rows only."""
    return _scan_columns(hidden, new_rows, frozen_rows, targets, weights, columns, grads=False)[0]


def _forward(hidden, new_rows, frozen_rows, targets, weights, columns):
    return _scan_columns(hidden, new_rows, frozen_rows, targets, weights, columns, grads=True)


def _backward(columns, grads, cotangent):
    del columns
    d_hidden, d_new = grads
    return d_hidden * cotangent.astype(d_hidden.dtype), d_new * cotangent, None, None, None


_nll.defvjp(_forward, _backward)


def _scan_columns(hidden, new_rows, frozen_rows, targets, weights, columns, *, grads):
    b, t, d = hidden.shape
    order = jnp.argsort(weights == 0, axis=1, stable=True)  # a row's targets come first
    num_chunks = -(-t // columns)

    def chunks(x):  # [B, T, ...] to [chunks, B, columns, ...]
        x = jnp.take_along_axis(x, order.reshape(b, t, *[1] * (x.ndim - 2)), axis=1)
        x = jnp.pad(x, [(0, 0), (0, num_chunks * columns - t)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(b, num_chunks, columns, *x.shape[2:]), 1, 0)

    frozen, new = frozen_rows.astype(hidden.dtype), new_rows.astype(hidden.dtype)
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def work(carry, xs):
        total, d_new = carry
        h, target, weight = xs
        scores, new_scores = dot("bcd,vd->bcv", h, frozen), dot("bcd,vd->bcv", h, new)
        log_z = jnp.logaddexp(
            jax.nn.logsumexp(scores, axis=-1), jax.nn.logsumexp(new_scores, axis=-1)
        )[..., None]
        size = frozen.shape[0]
        is_new = (target >= size)[..., None]
        old_target = jnp.minimum(target, size - 1)[..., None]
        new_target = jnp.maximum(target - size, 0)[..., None]
        right = jnp.where(
            is_new,
            jnp.take_along_axis(new_scores, new_target, axis=-1),
            jnp.take_along_axis(scores, old_target, axis=-1),
        )
        total += (weight * (log_z - right)[..., 0]).sum()
        if not grads:
            return (total, d_new), None
        weight = weight[..., None]
        p = (jnp.exp(scores - log_z) * weight).astype(h.dtype)
        hit = jax.nn.one_hot(jnp.where(is_new, new_target, -1)[..., 0], new.shape[0])
        error_new = ((jnp.exp(new_scores - log_z) - hit) * weight).astype(h.dtype)
        d_h = dot("bcv,vd->bcd", p, frozen) + dot("bcv,vd->bcd", error_new, new)
        d_h -= jnp.where(is_new, 0.0, weight) * frozen[old_target[..., 0]].astype(jnp.float32)
        return (total, d_new + dot("bcv,bcd->vd", error_new, h)), d_h.astype(h.dtype)

    def skip(carry, xs):
        return carry, jnp.zeros_like(xs[0]) if grads else None

    def one(carry, xs):
        return jax.lax.cond((xs[2] != 0).any(), work, skip, carry, xs)

    start = (jnp.zeros((), jnp.float32), jnp.zeros(new_rows.shape, jnp.float32))
    (total, d_new), d_sorted = jax.lax.scan(
        one, start, (chunks(hidden), chunks(targets), chunks(weights))
    )
    if not grads:
        return total, None
    d_sorted = jnp.moveaxis(d_sorted, 0, 1).reshape(b, num_chunks * columns, d)[:, :t]
    back = jnp.argsort(order, axis=1)
    return total, (jnp.take_along_axis(d_sorted, back[..., None], axis=1), d_new)
