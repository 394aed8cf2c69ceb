"""experiments.score on a small model: the promised keys, and likelihoods that add up."""

import json
import math

import pytest

from experiments import score
from experiments.asking import prompting
from flamingo_jax.prompts import read_prompts
from tests.experiments import prompt_files

# 17 to 32 tokens with and without candidate: one padded length, so few programs to compile.
WITH_CANDIDATES = {
    "id": "q",
    "prompt": [
        {"image": "red.png"},
        {"text": "A circle:"},
        {"end_of_chunk": True},
        {"text": "Output:"},
    ],
    "candidates": [" red", " blue"],
}
WITHOUT = {"prompt": [{"image": "blue.png"}, {"text": "A circle, Output:"}]}


def test_json_has_the_promised_keys(tmp_path, micro_model_dir):
    file = prompt_files.write(tmp_path, WITH_CANDIDATES, WITHOUT)
    done = prompt_files.run(
        "experiments.score", f"--model={micro_model_dir}", f"--prompt={file}", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("scoring: 3 of 3 readings in ")
    first, second = map(json.loads, done.stdout.splitlines())
    assert list(first) == ["tokens", "logprobs", "candidates"]
    assert first["tokens"] == list("A circle:Output:")  # text only: no picture, no mark
    assert first["logprobs"][0] is None
    assert all(-50 < value < 0 for value in first["logprobs"][1:])
    assert [list(c) for c in first["candidates"]] == [["text", "logprob", "num_tokens"]] * 2
    assert [(c["text"], c["num_tokens"]) for c in first["candidates"]] == [
        (" red", 4),
        (" blue", 5),
    ]
    assert list(second) == ["tokens", "logprobs"]
    assert len(second["tokens"]) == len(second["logprobs"]) == 17


def test_a_candidates_likelihood_is_the_sum_of_its_tokens_in_the_prompt(tmp_path, micro_model):
    """The same text, once as a candidate and once as the end of the prompt."""
    head = [{"image": "red.png"}, {"text": "A circle, Output:"}]
    file = prompt_files.write(
        tmp_path,
        {"id": "candidate", "prompt": head, "candidates": [" red"]},
        {"id": "whole", "prompt": [*head, {"text": " red"}]},
    )
    candidate, whole = micro_model.score(read_prompts(file))
    assert candidate.candidates[0].log_prob == pytest.approx(sum(whole.log_probs[-4:]), abs=1e-3)


def test_another_picture_gives_another_likelihood(tmp_path, micro_model):
    parts = [{"text": "A circle, Output: a thing"}]
    file = prompt_files.write(
        tmp_path, *({"prompt": [{"image": f"{c}.png"}, *parts]} for c in ("red", "blue"))
    )
    red, blue = micro_model.score(read_prompts(file))
    assert red.tokens == blue.tokens
    assert (
        max(abs(a - b) for a, b in zip(red.log_probs[1:], blue.log_probs[1:], strict=True)) > 1e-4
    )


def test_every_likelihood_is_one_of_a_distribution(micro_model):
    """The likelihoods of all single-byte answers, with the marks', add up to one."""
    (scores,) = micro_model.likelihoods(
        [[{"text": "x"}]], [[chr(i) for i in range(128)]], closed=False
    )
    assert 0 < sum(math.exp(s) for s in scores) < 1


def test_for_a_reader_the_likeliest_candidate_comes_first(tmp_path, micro_model):
    (prompt,) = read_prompts(prompt_files.write(tmp_path, WITH_CANDIDATES))
    (scored,) = micro_model.score([prompt])
    lines = list(score.lines(prompt.id, scored))
    best = max(scored.candidates, key=lambda c: c.log_prob)
    assert lines[0] == "q:"
    assert lines[1].split() == ["-", "A"]
    assert f"candidate {best.text}" in lines[-2]


def test_line_breaks_are_shown_not_made():
    assert prompting.one_line("a\tb\nc") == "a\\tb\\nc"
