"""Which text token sees which media: pure functions of phi (paper, section 2.1 and figure 7).

phi(t) is the index, from 1, of the last media before text position t, and 0 where there is none.
It switches *at* the media tag, so the tag itself already sees its own media:

    <BOS> Cute pics <EOC> <image> My puppy <EOC> <image> My cat <EOC>
      0    0    0    0       1     1   1     1      2     2   2    2

    phi   last: media 1 2     all_previous: media 1 2
     0              . .                           . .     sees nothing, gets exactly zero
     1              x .                           x .
     2              . x                           x x
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def media_index(tokens: Array, image_id: int) -> Array:
    """phi i32[B, T] of tokens i32[B, T]: the media tags up to and with each position."""
    return jnp.cumsum(tokens == image_id, axis=1, dtype=jnp.int32)


def text_media_mask(
    media_index: Array,  # i32[B, T], phi
    media_mask: Array,  # bool[B, M], False on padding media
    attend: str = "last",
) -> Array:  # bool[B, T, M]
    """True where a text token may attend to a media item.

    `last` is the paper's rule; `all_previous` its ablation (Table 10, row ii). An index beyond the
    media there are sees nothing.
    """
    media = 1 + jnp.arange(media_mask.shape[1])
    phi = media_index[..., None]
    seen = {"last": phi == media, "all_previous": phi >= media}[attend]
    return seen & media_mask[:, None, :]


def over_latents(mask: Array, num_latents: int) -> Array:
    """bool[B, T, M] repeated to bool[B, T, M * R]: all visual tokens of a media item, or none."""
    return jnp.repeat(mask, num_latents, axis=-1)
