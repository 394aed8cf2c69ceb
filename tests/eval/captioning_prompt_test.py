"""The few-shot prompt part by part, and templates."""

import pytest

from flamingo_jax.eval.captioning_prompt import (
    CaptionTemplate,
    EndOfChunk,
    ImagePart,
    Shot,
    TextPart,
    captioning_prompt,
    cut_at_next_prompt,
    text_only,
)

SHOTS = [Shot("1.png", "a cat"), Shot("2.png", "two dogs")]


def test_the_papers_two_shot_prompt():
    assert captioning_prompt(SHOTS, "q.png") == (
        ImagePart("1.png"),
        TextPart("Output: a cat"),
        EndOfChunk(),
        ImagePart("2.png"),
        TextPart("Output: two dogs"),
        EndOfChunk(),
        ImagePart("q.png"),
        TextPart("Output:"),
    )


def test_zero_shot_is_two_texts_without_pictures():
    assert captioning_prompt(text_only(SHOTS), "q.png") == (
        TextPart("Output: a cat"),
        EndOfChunk(),
        TextPart("Output: two dogs"),
        EndOfChunk(),
        ImagePart("q.png"),
        TextPart("Output:"),
    )


def test_a_bare_template_ends_with_the_picture():
    template = CaptionTemplate(" {}")
    assert captioning_prompt(SHOTS[:1], "q.png", template) == (
        ImagePart("1.png"),
        TextPart(" a cat"),
        EndOfChunk(),
        ImagePart("q.png"),
    )


@pytest.mark.parametrize("text", ["Output: {}", " {}", "{}", "A picture of {}.", "Output:{}"])
def test_query_and_continuation_make_the_filled_template(text):
    template = CaptionTemplate(text)
    assert template.query + template.continuation("a cat") == template.fill("a cat")


def test_braces_in_a_caption_stay():
    assert CaptionTemplate().fill("a {} sign") == "Output: a {} sign"


@pytest.mark.parametrize("text", ["Output:", "{} and {}", ""])
def test_a_template_needs_one_place(text):
    with pytest.raises(ValueError, match=r"must hold \{\} once"):
        CaptionTemplate(text)


def test_predictions_are_cut_where_the_next_prompt_begins():
    template = CaptionTemplate()
    assert cut_at_next_prompt(" a cat Output: a dog", template) == "a cat"
    assert cut_at_next_prompt("\n a cat\nand more", template) == "a cat"
    assert cut_at_next_prompt(" a cat ", CaptionTemplate(" {}")) == "a cat"
    assert cut_at_next_prompt("", template) == ""


@pytest.mark.parametrize(
    ("template", "written", "caption"),
    [
        ("a {}", " cat and a hat", "cat and a hat"),  # captions hold a single word themselves
        ("It is {}", " an audit issue", "an audit issue"),
        ("It is {}", " a cat It issues", "a cat It issues"),
        ("It is {}", " a cat It is a dog", "a cat"),
        ("Output:{}", "a cat Output:a dog", "a cat"),
        ("A picture of {}", " a cat A picture of a dog", "a cat"),
    ],
)
def test_only_whole_words_of_the_template_cut(template, written, caption):
    assert cut_at_next_prompt(written, CaptionTemplate(template)) == caption
