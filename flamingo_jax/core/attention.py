"""One attention function for the whole model: grouped heads, masks, float32 softmax.

Masks are True where a query may attend. A query that may attend to nothing gets exactly zero, which
is what text before the first image needs (paper, section 2.1: phi = 0; the paper leaves the empty
softmax open, and the public reproductions zero it).
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def attend(
    q: Array,  # [B, T, N, H]
    k: Array,  # [B, S, K, H], N a multiple of K
    v: Array,  # [B, S, K, H]
    mask: Array | None = None,  # bool[B, T, S]
    *,
    bias: Array | None = None,  # f32[B or 1, N, T, S], added to the scaled logits
    scale: float | None = None,  # default H ** -0.5
) -> Array:  # [B, T, N, H]
    """Softmax attention; each of the K key heads serves N / K neighbouring query heads."""
    b, t, n, h = q.shape
    kv_heads = k.shape[2]
    scale = h**-0.5 if scale is None else scale
    q = (q * jnp.asarray(scale, q.dtype)).reshape(b, t, kv_heads, n // kv_heads, h)
    logits = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias.reshape(-1, *logits.shape[1:])
    if mask is not None:
        mask = mask[:, None, None]
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    # Heads before tokens, so that the product's rows lie together. Logits made that way too crash
    # the compiler of libtpu 0.0.42 for v6e.
    out = jnp.einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v.swapaxes(1, 2))
    return out.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)
