"""ALiBi's slopes, worked by hand, and rotary dims that cannot be."""

import pytest

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.positions import alibi_slopes


def test_alibi_slopes_halve_from_head_to_head():
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]


def test_alibi_slopes_of_six_heads_skip_every_other_of_eight():
    assert alibi_slopes(6).tolist() == [2.0**-h for h in (2, 4, 6, 8, 1, 3)]


@pytest.mark.parametrize("dims", [0, 3, 10])
def test_rope_dims_that_cannot_be_are_refused(dims):
    sizes = dict.fromkeys(("vocab_size", "num_layers", "width", "num_heads", "ffw_width"), 8)
    with pytest.raises(ValueError, match=rf"rope_dims={dims}: use an even number up to head_dim=8"):
        LanguageModelConfig(**sizes, head_dim=8, rope_dims=dims)
