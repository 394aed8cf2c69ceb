"""CIDEr-D: the COCO scorer's own numbers on small captions, and what must hold for any."""

import numpy as np
import pytest

from flamingo_jax.eval.cider import cider_d

HYPOTHESES = ["a dog runs", "a cat sits on a mat"]
REFERENCES = [
    ["a dog runs fast", "the dog is running"],
    ["a cat sits on the mat", "cat on mat"],
]


def test_coco_scorers_values():
    scores = cider_d(HYPOTHESES, REFERENCES)
    np.testing.assert_allclose(scores, [3.38805073, 3.99699759], atol=1e-8)
    np.testing.assert_allclose(scores.mean(), 3.69252416, atol=1e-8)


def test_the_right_caption_scores_ten_and_an_unrelated_one_zero():
    scores = cider_d(["a red fire truck", "x y z w"], [["a red fire truck"], ["two dogs in snow"]])
    np.testing.assert_allclose(scores, [10, 0], atol=1e-12)


def test_two_words_have_no_longer_ngrams_and_score_five():
    scores = cider_d(["red apple", "kick scooter"], [["red apple"], ["kick scooter"]])
    np.testing.assert_allclose(scores, [5, 5])


def test_words_in_every_image_weigh_nothing():
    # "a" is in both images, so idf is 0; only "dog" against "cat" is left, and it is wrong.
    np.testing.assert_allclose(cider_d(["a dog", "a dog"], [["a cat"], ["a dog"]])[0], 0)


def test_one_image_alone_scores_zero():
    np.testing.assert_array_equal(cider_d(["a dog runs"], [["a dog runs"]]), [0])


def test_repeating_a_word_is_clipped_and_lengthening_is_punished():
    references = [["red dog runs far"], ["two cats sleep there"]]
    repeated, _ = cider_d(["red dog runs far far far far", "x"], references)
    # Every n-gram weighs the same. Of n words: clipped matches / (norm here * norm there).
    one, two = 4 / np.sqrt((3 + 4**2) * 4), 3 / np.sqrt((3 + 3**2) * 3)
    three, four = 2 / np.sqrt((3 + 2**2) * 2), 1 / np.sqrt(4 * 1)
    longer = np.exp(-(3**2) / (2 * 6**2))  # by three
    np.testing.assert_allclose(repeated, 10 * (one + two + three + four) / 4 * longer)


def test_empty_hypothesis_scores_zero():
    np.testing.assert_array_equal(cider_d(["", ""], REFERENCES), [0, 0])


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], REFERENCES, "1 hypotheses for 2 images"),
        ([], [], "no captions"),
        (["a", "b"], [["a"], []], r"references\[1\]"),
        (["a", "b"], ["a", "b"], r"references\[0\]"),
    ],
)
def test_bad_input_is_named(hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        cider_d(hypotheses, references)


@pytest.mark.reference
def test_agrees_with_pycocoevalcap_on_random_captions():
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    generator = np.random.default_rng(0)
    words = np.array(["a", "the", "dog", "cat", "red", "runs", "sits", "on", "mat", "snow"])

    def caption():
        return " ".join(generator.choice(words, generator.integers(1, 12)))

    hypotheses = [caption() for _ in range(60)]
    references = [[caption() for _ in range(generator.integers(1, 6))] for _ in range(60)]
    hypotheses[:10] = [r[0] for r in references[:10]]
    want, each = cider.Cider().compute_score(
        dict(enumerate(references)), {i: [h] for i, h in enumerate(hypotheses)}
    )
    got = cider_d(hypotheses, references)
    np.testing.assert_allclose(got, each, atol=1e-10)
    np.testing.assert_allclose(got.mean(), want, atol=1e-10)
