"""One attention function for the whole model: grouped heads, masks, float32 softmax.

Masks are True where a query may attend. A query that may attend to nothing gets exactly zero, which
is what text before the first image needs (paper, section 2.1: phi = 0; the paper leaves the empty
softmax open, and the public reproductions zero it).
"""

import jax
import jax.numpy as jnp

from flamingo_jax.core import softcap as softcap_lib

Array = jax.Array


def attend(
    q: Array,  # [B, T, N, H]
    k: Array,  # [B, S, K, H], N a multiple of K
    v: Array,  # [B, S, K, H]
    mask: Array | None = None,  # bool[B, T, P + S]
    *,
    bias: Array | None = None,  # f32[B or 1, N, T, P + S], added to the scaled logits
    scale: float | None = None,  # default H ** -0.5
    softcap: float | None = None,  # bound of the scaled logits
    prompt: tuple[Array, Array] | None = None,  # keys, values [B / n, P, K, H] before those of S
) -> Array:  # [B, T, N, H]
    """Softmax attention; each of the K key heads serves N / K neighbouring query heads.

    And each row of `prompt` n neighbouring rows of queries, such as the beams that go on from it.
    """
    b, t, n, h = q.shape
    kv_heads = k.shape[2]
    scale = h**-0.5 if scale is None else scale
    q = (q * jnp.asarray(scale, q.dtype)).reshape(b, t, kv_heads, n // kv_heads, h)
    logits = _scores(q, k)
    if prompt is not None:
        logits = jnp.concatenate([_scores(q, prompt[0]), logits], axis=-1)
    logits = softcap_lib.softcap(logits, softcap)
    if bias is not None:
        logits += bias.reshape(-1, *logits.shape[1:])
    if mask is not None:
        mask = mask[:, None, None]
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    weights = weights.astype(v.dtype)
    if prompt is None:
        return _mix(weights, v).reshape(b, t, n, h)
    first, weights = jnp.split(weights, [prompt[0].shape[1]], axis=-1)
    return (_mix(first, prompt[1]) + _mix(weights, v)).reshape(b, t, n, h)


def _scores(q: Array, k: Array) -> Array:
    """f32[B, K, G, T, S] of q [B, T, K, G, H] and k [B / n, S, K, H]."""
    (b, t, heads, groups, _), rows = q.shape, k.shape[0]
    q = q.reshape(rows, -1, *q.shape[2:])  # the tokens of rows that share keys are one row's
    logits = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32)
    if rows == b:
        return logits
    logits = jnp.moveaxis(logits.reshape(rows, heads, groups, b // rows, t, -1), 3, 1)
    return logits.reshape(b, heads, groups, t, -1)


def _mix(weights: Array, v: Array) -> Array:
    """[B, T, K, G, H] of weights [B, K, G, T, S] and v [B / n, S, K, H]."""
    (b, heads, groups, t, s), rows = weights.shape, v.shape[0]
    if rows != b:
        weights = jnp.moveaxis(weights.reshape(rows, b // rows, heads, groups, t, s), 1, 3)
        weights = weights.reshape(rows, heads, groups, -1, s)
    # Heads before tokens, so that the product's rows lie together. Logits made that way too crash
    # the compiler of libtpu 0.0.42 for v6e.
    out = jnp.einsum("bkgts,bksh->bkgth", weights, v.swapaxes(1, 2))
    return out.transpose(0, 3, 1, 2, 4).reshape(b, t, heads, groups, -1)
