"""The caption tokeniser against what the COCO scorer's PTBTokenizer was seen to print."""

import shutil

import pytest

from flamingo_jax.eval.caption_tokenizer import tokenize

# The Java program's output on these lines, punctuation dropped; checked again below.
SEEN = {
    "A dog, running.": "a dog running",
    "A dog's toy can't roll; the dogs' can.": "a dog 's toy ca n't roll the dogs can",
    "Isn\u2019t it a \u201cmat\u201d?": "is n't it a mat",
    "They cannot; we've gonna go": "they can not we 've gon na go",
    "A well-known man/woman in a T-shirt": "a well-known man/woman in a t-shirt",
    "flag: England (white)": "flag england -lrb- white -rrb-",
    "3,000 people at 10:30pm on St. Mark's, $5.50 each": (
        "3,000 people at 10:30 pm on st. mark 's $ 5.50 each"
    ),
    "the 1980's and '90s and 50%": "the 1980 's and '90s and 50 %",
    "wow... what?! no -- yes": "wow what ?! no yes",
    "black & white a.m. u.s. flag no. 5": "black & white a.m. u.s. flag no. 5",
    "rocks at O'Hare and the #41 bus": "rocks at o'hare and the # 41 bus",
    "café 😀 naïve": "café naïve",
    "a, b ,c": "a b c",
}


@pytest.mark.parametrize(("caption", "tokens"), SEEN.items())
def test_as_seen(caption, tokens):
    assert tokenize(caption) == tokens


@pytest.mark.parametrize("caption", ["", "   ", "...", "\n\t", "?.", "😀", "- -- ,"])
def test_nothing_left_is_an_empty_string(caption):
    assert tokenize(caption) == ""


def test_a_new_line_is_a_space():
    assert tokenize("a dog\nruns") == "a dog runs"


@pytest.mark.reference
def test_agrees_with_the_java_program():
    ptb = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("the COCO scorer's tokeniser needs java")
    captions = {i: [{"caption": c}] for i, c in enumerate(SEEN)}
    want = ptb.PTBTokenizer().tokenize(captions)
    assert [" ".join(want[i][0].split()) for i in captions] == list(SEEN.values())
