"""Sample, score and evaluate on a mesh, of one process and of two that ask together."""

import json
import os
import re
import subprocess
import sys

import pytest

from experiments.asking import mesh_flag
from flamingo_jax.model import Decoding
from flamingo_jax.prompts import read_prompts
from tests.experiments import prompt_files
from tests.experiments.evaluation import drawn_benchmark
from tests.quick_compiling import FLAGS

RED = {
    "id": "red",
    "prompt": [{"image": "red.png"}, {"text": "Output:"}],
    "candidates": ["a", "bc"],
}
BLUE = {"id": "blue", "prompt": [{"image": "blue.png"}, {"text": "Output:"}]}


def together(module: str, *arguments: object) -> tuple[list[str], str]:
    """What process 0 of two prints, each with two devices, and what all say."""
    command = [
        *(sys.executable, "-m", "launch.local", "--num_processes=2", "--"),
        *(sys.executable, "-m", module, *map(str, arguments)),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {FLAGS}"},
        capture_output=True,
        text=True,
        cwd=prompt_files.ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # What Gloo says of its peers, whose number may be torn off where two processes write at once.
    gloo = re.compile(r"(\[\d\] ?)*(.*(Gloo|peer ranks).*|[\d\s.]*)")
    lines = [line for line in done.stdout.splitlines() if not gloo.fullmatch(line)]
    assert all(line.startswith("[0] ") for line in lines), done.stdout
    return [line.removeprefix("[0] ") for line in lines], done.stderr


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path, micro_model_dir, micro_model):
    file = prompt_files.write(tmp_path, RED, BLUE)
    given = (f"--model={micro_model_dir}", f"--prompt={file}", "--json", "--mesh=data=2,tensor=2")
    lines, errors = together("experiments.score", *given)
    found = list(map(json.loads, lines))
    for answer, want in zip(found, micro_model.score(read_prompts(file)), strict=True):
        assert tuple(answer["tokens"]) == want.tokens
        assert answer["logprobs"][1:] == pytest.approx(want.log_probs[1:], abs=1e-5, rel=1e-5)
        log_probs = [c["logprob"] for c in answer.get("candidates", ())]
        assert log_probs == pytest.approx([c.log_prob for c in want.candidates], rel=1e-5)
    assert not re.search(r"\[1\] .*readings", errors)  # one of them says how far it is


@pytest.mark.slow
def test_two_processes_write_as_one_on_all_their_devices(tmp_path, micro_model_dir, micro_model):
    file = prompt_files.write(tmp_path, RED, BLUE)
    given = (f"--model={micro_model_dir}", f"--prompt={file}", "--json", "--max_tokens=4")
    lines, _ = together("experiments.sample", *given, "--decode=beam")
    want = micro_model.generate(read_prompts(file), Decoding("beam", max_tokens=4))
    found = list(map(json.loads, lines))
    assert [tuple(answer["tokens"]) for answer in found] == [w.tokens for w in want]
    assert [answer["id"] for answer in found] == ["red", "blue"]


@pytest.mark.slow
def test_two_processes_evaluate_as_one_and_go_on_where_they_were(tmp_path, micro_model_dir):
    """Only process 0 looks at --out; a torn line and a missing one are made anew, no other."""
    path = drawn_benchmark.write(tmp_path, "captions")
    out = tmp_path / "out"
    given = (f"--model={micro_model_dir}", f"--tasks=jsonl:{path}", "--shots=2")
    alone = prompt_files.run("experiments.evaluate", *given, f"--out={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    (want,) = read_results(tmp_path / "alone")
    lines, _ = together("experiments.evaluate", *given, f"--out={out}")
    assert lines == [f"results: {out / 'results.md'}"]
    (found,) = read_results(out)
    assert found["score"] == pytest.approx(want["score"])
    predictions = out / "predictions" / "captions_2.jsonl"
    whole = predictions.read_text().splitlines()
    changed = [json.loads(line) | {"written": "kept"} for line in whole[:4]]
    kept = [json.dumps(line) for line in changed]
    predictions.write_text("\n".join(kept) + "\n" + whole[4][:20])
    together("experiments.evaluate", *given, f"--out={out}")
    again = list(map(json.loads, predictions.read_text().splitlines()))
    assert [line["id"] for line in again] == [json.loads(line)["id"] for line in whole]
    assert [line["written"] == "kept" for line in again] == [True] * 4 + [False] * 2
    assert [line["text"] for line in again] == [json.loads(line)["text"] for line in whole]


def read_results(folder) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["results"]


@pytest.mark.parametrize(
    ("mesh", "says"),
    [
        ("tensr=2", "--mesh=tensr=2: write axes of slice, data, fsdp, tensor, each once and with"),
        ("data=3", "does not divide 8 devices: .* the nearest that divides is 2; or take a"),
        ("tensor=8", r"which mesh axis tensor of 8 does not divide: use 2"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_line(tmp_path, micro_model_dir, mesh, says):
    file = prompt_files.write(tmp_path, RED)
    given = (f"--model={micro_model_dir}", f"--prompt={file}", f"--mesh={mesh}")
    done = prompt_files.run("experiments.score", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert re.search(says, done.stderr), done.stderr


def test_axes_of_a_mesh_are_read():
    assert mesh_flag.sizes("data=-1, tensor=4") == {"data": -1, "tensor": 4}
    for text in ("tensor", "tensor=2,tensor=2"):
        with pytest.raises(ValueError, match=f"^--mesh={text}: write axes of slice, data, fsdp"):
            mesh_flag.sizes(text)
