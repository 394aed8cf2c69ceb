"""Prompts as whole strings, byte for byte, and what is drawn for them."""

import pathlib

import numpy as np
import pytest

from flamingo_jax.eval import few_shot
from flamingo_jax.eval.prompt_template import PromptTemplate, cut_at_keywords
from flamingo_jax.eval.task import QUESTION, Example, Task
from flamingo_jax.prompts import ImagePart


def example(name: str, answer: str, **fields: str) -> Example:
    return Example(name, ImagePart(f"{name}.jpg"), answer, (answer,), fields)


def test_captioning_with_two_shots_and_with_none():
    template = PromptTemplate("Output: {answer}")
    shots, query = [example("1", "a cat"), example("2", "two dogs")], example("q", "?")
    assert few_shot.as_text(few_shot.task_prompt(template, shots, query)) == (
        "<image>Output: a cat<EOC><image>Output: two dogs<EOC><image>Output:"
    )
    zero = few_shot.task_prompt(template, shots, query, with_media=False)
    assert few_shot.as_text(zero) == ("Output: a cat<EOC>Output: two dogs<EOC><image>Output:")


def test_question_answering():
    shots = [example("1", "grey", question="What colour is it?")]
    query = example("q", "?", question="Is it {big}?")
    assert few_shot.as_text(few_shot.task_prompt(QUESTION, shots, query)) == (
        "<image>Question: What colour is it? Answer: grey<EOC><image>Question: Is it {big}? Answer:"
    )


def test_a_bare_template_ends_with_the_picture():
    template = PromptTemplate.of_caption(" {}")
    prompt = few_shot.task_prompt(template, [example("1", "a cat")], example("q", "?"))
    assert few_shot.as_text(prompt) == "<image> a cat<EOC><image>"
    assert isinstance(prompt[-1], ImagePart)


def test_a_caption_template_has_one_place():
    assert PromptTemplate.of_caption("Look: {}.") == PromptTemplate("Look: {answer}.")
    assert PromptTemplate.of_caption("{}").fill({}, "a {} sign") == "a {} sign"
    for text in ("Output:", "{} and {}", ""):
        with pytest.raises(ValueError, match=r"must hold \{\} once, as in 'Output: \{\}'"):
            PromptTemplate.of_caption(text)
    with pytest.raises(ValueError, match=r"has a place \{answer\} beside \{\}"):
        PromptTemplate.of_caption("{answer} {}")


@pytest.mark.parametrize(
    "text", ["Output: {answer}", "{answer}", " {answer}", "It is {answer}.", "Output:{answer}"]
)
def test_query_and_continuation_make_the_filled_template(text):
    template = PromptTemplate(text)
    assert template.query({}) + template.continuation("a cat") == template.fill({}, "a cat")


def test_what_is_filled_in_is_not_filled_again():
    assert QUESTION.fill({"question": "{answer}?"}, "{question}") == (
        "Question: {answer}? Answer: {question}"
    )


@pytest.mark.parametrize("text", ["Output:", "{answer} {answer}", "{}"])
def test_a_template_needs_one_place_for_the_answer(text):
    with pytest.raises(ValueError, match=r"must hold \{answer\} once"):
        PromptTemplate(text)
    with pytest.raises(ValueError, match=r"put \{question\} before \{answer\}"):
        PromptTemplate("{answer} to {question}")


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (" a cat Question: what is it? Answer: a dog", "a cat"),
        (" a cat Answer: a dog", "a cat"),
        (" a questionable Answer", "a questionable Answer"),
        (" a cat\nand more", "a cat"),
        ("", ""),
    ],
)
def test_answers_end_at_the_prompts_keywords(written, answer):
    assert QUESTION.keywords == ("Question:", "Answer:")
    assert cut_at_keywords(written, QUESTION.keywords) == answer


@pytest.mark.parametrize(
    ("template", "written", "caption"),
    [
        ("Output: {}", " a cat Output: a dog", "a cat"),
        ("Output: {}", "\n a cat\nand more", "a cat"),
        (" {}", " a cat ", "a cat"),
        ("a {}", " cat and a hat", "cat and a hat"),  # captions hold a single word themselves
        ("It is {}", " an audit issue", "an audit issue"),
        ("It is {}", " a cat It issues", "a cat It issues"),
        ("It is {}", " a cat It is a dog", "a cat"),
        ("Output:{}", "a cat Output:a dog", "a cat"),
        ("A picture of {}", " a cat A picture of a dog", "a cat"),
    ],
)
def test_only_whole_words_of_a_template_cut(template, written, caption):
    keywords = PromptTemplate.of_caption(template).keywords
    assert cut_at_keywords(written, keywords) == caption


def test_zero_shots_are_two_texts_but_none_before_candidates():
    assert few_shot.num_examples(0, closed=False) == 2
    assert few_shot.num_examples(0, closed=True) == 0
    assert few_shot.num_examples(0, closed=False, zero_shot_texts=0) == 0
    assert few_shot.num_examples(4, closed=False) == few_shot.num_examples(4, closed=True) == 4


def task(answers: list[str], **changes) -> Task:
    support = [example(str(i), answer) for i, answer in enumerate(answers)]
    return Task("t", "test", PromptTemplate("{answer}"), "top1", [], support, **changes)


def test_the_pool_is_drawn_once_by_seed():
    many = task([str(i) for i in range(50)], num_support=10)
    pool = few_shot.support_pool(many, 0)
    assert len(pool) == len({e.id for e in pool}) == 10
    assert pool == few_shot.support_pool(many, 0) != few_shot.support_pool(many, 1)
    assert few_shot.support_pool(task(["a"] * 5, num_support=None), 0) == task(["a"] * 5).support


def test_classification_draws_as_many_of_each_class():
    pool = few_shot.support_pool(task(list("aaaaabbbbbccc"), per_answer=2), 0)
    assert sorted(e.answer for e in pool) == list("aabbcc")


def test_orders_are_different_permutations_drawn_for_the_query():
    assert few_shot.orders(4, 1, "q", 0) == [(0, 1, 2, 3)]
    six = few_shot.orders(4, 6, "q", 0)
    assert len(set(six)) == 6
    assert all(sorted(o) == [0, 1, 2, 3] for o in six)
    assert six == few_shot.orders(4, 6, "q", 0) != few_shot.orders(4, 6, "r", 0)
    assert len(few_shot.orders(2, 6, "q", 0)) == 2
    assert few_shot.orders(0, 6, "q", 0) == [()]


def test_orders_are_uniform():
    first = [few_shot.orders(3, 2, f"q{i}", 0)[0][0] for i in range(1500)]
    assert abs(np.bincount(first) / 1500 - 1 / 3).max() < 0.05


def test_a_fingerprint_changes_with_an_example_not_with_its_folder():
    def with_support(path: str, answer: str) -> str:
        support = [Example("1", ImagePart(pathlib.Path(path)), answer, (answer,))]
        template = PromptTemplate("{answer}")
        return Task("t", "test", template, "top1", [], support).fingerprint

    assert with_support("a/1.jpg", "cat") == with_support("b/1.jpg", "cat")
    others = [with_support("a/2.jpg", "cat"), with_support("a/1.jpg", "dog")]
    assert with_support("a/1.jpg", "cat") not in others
