"""Classes by their descriptions, by hand."""

import numpy as np
import pytest

from flamingo_jax.eval import zero_shot

POINTS = {"a cat": (1.0, 0.0), "the cat": (0.0, 1.0), "a dog": (1.0, 0.0), "the dog": (0.6, -0.8)}


def embed(texts):
    return np.array([POINTS[text] for text in texts], np.float32)


def test_a_class_stands_in_the_mean_direction_of_its_descriptions():
    found = zero_shot.class_points(embed, ["cat", "dog"], ["a {}", "the {}"])
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0.8**0.5, -(0.2**0.5)]], atol=1e-6)


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",)])
def test_templates_without_one_place_are_refused(templates):
    with pytest.raises(ValueError, match="template"):
        zero_shot.check_templates(templates)


def test_our_own_have_one():
    for templates in (zero_shot.PICTURES, zero_shot.VIDEOS):
        zero_shot.check_templates(templates)


def test_a_file_of_templates(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("a {}\n\n  ein süßes {} \n", "utf-8")
    assert zero_shot.read_templates(path) == ["a {}", "ein süßes {}"]
    for data, message in (
        (b" \n", "is empty: want a description"),
        (b"a\xff{}", "UTF-8 at byte 1"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"templates\.txt.*{message}"):
            zero_shot.read_templates(path)
