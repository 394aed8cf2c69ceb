"""Truth tables of phi and of the mask it makes."""

import jax.numpy as jnp
import numpy as np

from flamingo_jax.models.media_mask import media_index, over_latents, text_media_mask

IMAGE = 9


def test_phi_of_the_papers_example():
    """<BOS> Cute pics <EOC> <image> My puppy <EOC> <image> My cat <EOC>"""
    tokens = jnp.array([[1, 2, 3, 8, IMAGE, 4, 5, 8, IMAGE, 4, 6, 8], [IMAGE] * 3 + [1] * 9])
    want = [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [1, 2, 3] + [3] * 9]
    np.testing.assert_array_equal(media_index(tokens, IMAGE), want)


def table(attend, media_mask):
    phi = jnp.array([[0, 1, 2, 3, 4]])
    return np.asarray(text_media_mask(phi, jnp.array([media_mask]), attend)[0]).astype(int).tolist()


def test_each_text_token_sees_its_last_media_only():
    #                         media 1  2  3
    assert table("last", [True] * 3) == [
        [0, 0, 0],  # phi = 0: before the first image
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 0],  # phi beyond the media there are
    ]


def test_the_ablation_sees_all_media_so_far():
    assert table("all_previous", [True] * 3) == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, 1],
        [1, 1, 1],
    ]


def test_padding_media_are_never_seen():
    assert table("last", [True, True, False])[3] == [0, 0, 0]
    assert table("all_previous", [True, False, True])[3] == [1, 0, 1]


def test_the_visual_tokens_of_one_media_stand_together():
    mask = jnp.array([[[True, False], [False, True]]])
    want = [[[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]]
    np.testing.assert_array_equal(over_latents(mask, 3), np.array(want, bool))
