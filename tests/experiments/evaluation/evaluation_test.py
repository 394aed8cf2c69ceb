"""experiments.evaluate on a small model and drawn shapes: scores, files, and going on."""

import json
import shutil
import sys

import fsspec
import numpy as np
import pytest

from experiments.cli import UserError
from experiments.evaluation import asking, evaluation, figure, settings
from experiments.evaluation import row as row_lib
from experiments.evaluation.media import Media
from experiments.evaluation.settings import Settings
from experiments.storage.workdir import Workdir
from flamingo_jax.eval import caption_tokenizer, cider, few_shot
from flamingo_jax.eval.tasks import jsonl
from flamingo_jax.model import Decoding
from flamingo_jax.prompts import EndOfChunk, ImagePart, Prompt, TextPart
from tests import buckets
from tests.experiments.evaluation import drawn_benchmark


def run(model, directory, path, out, shots, **settings):
    task, place = jsonl.read(path, model.caption_template), Workdir.given("--out", str(out))
    return evaluation.run(model, directory, [task], shots, Settings(**settings), place)


def lines_of(path) -> dict:
    """By id, of a single seed."""
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


@pytest.fixture(scope="module")
def captions(model, model_dir, tmp_path_factory):
    """Folder of the benchmark, --out, rows."""
    folder = tmp_path_factory.mktemp("captions")
    path = drawn_benchmark.write(folder, "captions")
    rows = run(model, model_dir, path, folder / "out", [2, 6])
    return folder, folder / "out", {row["shots"]: row for row in rows}


def test_what_is_written_is_what_the_model_writes_after_the_prompt(captions, model):
    folder, out, rows = captions
    found = lines_of(out / "predictions" / "captions_2.jsonl")
    assert list(found) == [f"q{i}" for i in range(6)]
    prompts = []
    for name, line in found.items():
        parts = [ImagePart(_picture(folder, name)), TextPart("Output:")]
        for shot in reversed(line["support"]):
            color, shape = _shapes()[int(shot[1:])]
            text = TextPart(f"Output: a {color} {shape}")
            parts = [ImagePart(_picture(folder, shot)), text, EndOfChunk(), *parts]
        prompts.append(parts)
    shown = [Prompt("", parts) for parts in Media(model).shown(prompts)]
    written = model.generate(shown, Decoding("beam", num_beams=3, max_tokens=3))
    for line, one in zip(found.values(), written, strict=True):
        assert line["written"] == one.text
        assert line["logprob"] == pytest.approx(one.log_prob, abs=1e-4)
        assert line["query"] == "<image>Output:"
    assert rows[2]["example_prompt"] == "<BOS>" + few_shot.as_text(prompts[0])


def _picture(folder, name: str):
    """Of an example; queries 4 and 5 have copies."""
    return folder / f"{name[1]}{int(name in ('q4', 'q5'))}.png"


def _shapes():
    return [(c, s) for c in drawn_benchmark.COLORS for s in drawn_benchmark.SHAPES]


def test_zero_shots_show_two_texts_without_pictures(captions, model):
    folder, _, _ = captions
    task = jsonl.read(folder / "captions.jsonl", "Output: {}")
    media = Media(model)
    media.look([e.media for e in task.support], pooled=True, tick=lambda number: None)
    with_similar = Settings(retrieval="rices")
    parts = {"queries": task.queries, "pool": task.support, "media": media, "model": model}
    asked = asking.ask(task, 0, 0, settings=with_similar, **parts)
    for one in asked:
        first, second = one.shots
        assert one.query.path not in (first.path, second.path)
        assert few_shot.as_text(one.prompts[0]) == (
            f"Output: {first.answer}<EOC>Output: {second.answer}<EOC><image>Output:"
        )
    at_random = asking.ask(task, 0, 0, settings=Settings(), **parts)
    assert [one.prompts for one in at_random] == [one.prompts for one in asked]


def test_no_querys_own_picture_is_an_example(captions):
    _, out, _ = captions
    for name, line in lines_of(out / "predictions" / "captions_2.jsonl").items():
        own = f"s{name[1:]}" if name in ("q0", "q1", "q2", "q3") else None
        assert own not in line["support"]
        assert len(set(line["support"])) == 2


def test_scores_are_those_of_the_written_texts(captions):
    _, out, rows = captions
    found = lines_of(out / "predictions" / "captions_2.jsonl").values()
    tokenize = caption_tokenizer.tokenize
    want = cider.cider_d(
        [tokenize(line["text"]) for line in found],
        [[tokenize(text) for text in line["references"]] for line in found],
    )
    np.testing.assert_allclose([line["score"] for line in found], 100 * want, atol=1e-4)
    assert rows[2]["score"] == pytest.approx(100 * want.mean())
    assert rows[2]["low"] <= rows[2]["score"] <= rows[2]["high"]


def test_rows_that_cannot_be_asked_say_why_and_the_others_go_on(captions):
    _, out, rows = captions
    assert rows[6]["note"] == "6 examples wanted, 5 usable in the support set"
    written = json.loads((out / "results.json").read_text())
    assert [row["shots"] for row in written["results"]] == [2, 6]
    assert len(written["model"]["card_sha256"]) == 64
    table = (out / "results.md").read_text()
    assert "| captions | cider | 6 |" in table
    assert (out / "results.png").stat().st_size > 10_000


def test_prompts_longer_than_the_context_are_out_of_it(model, model_dir, tmp_path, capsys):
    path = drawn_benchmark.write(tmp_path, "label", template="x" * 60 + "{answer}")
    (row,) = run(model, model_dir, path, tmp_path / "out", [4])
    assert row["note"].startswith("out of context: ")
    assert row["note"].endswith("the model reads 128")
    assert "OOC" in (tmp_path / "out" / "results.md").read_text()
    assert "label, 4 shots: out of context" in capsys.readouterr().err


def test_a_stopped_command_goes_on_where_it_was(captions, model, model_dir, tmp_path):
    folder, before, rows = captions
    out = tmp_path / "out"
    shutil.copytree(before, out)
    path = out / "predictions" / "captions_2.jsonl"
    kept = path.read_text().splitlines(keepends=True)
    first = json.loads(kept[0]) | {"text": "kept as it was"}
    path.write_text(json.dumps(first) + "\n" + kept[1][:20])  # killed while writing
    again = run(model, model_dir, folder / "captions.jsonl", out, [2])
    found = lines_of(path)
    assert found["q0"]["text"] == "kept as it was"
    for name, line in lines_of(before / "predictions" / "captions_2.jsonl").items():
        if name != "q0":
            assert line["support"] == found[name]["support"]
            assert line["written"] == found[name]["written"]
    assert [row["shots"] for row in again] == sorted(rows)  # rows of the first command stay


def test_from_a_bucket_another_machine_goes_on(captions, model, model_dir, tmp_path, monkeypatch):
    folder, before, _ = captions
    task = jsonl.read(folder / "captions.jsonl", model.caption_template)
    monkeypatch.setattr(row_lib, "_AT_ONCE", 4)
    asked, generate = [], model.generate

    def until_it_dies(prompts, *args):
        asked.append(len(prompts))
        if len(asked) == 2:
            raise RuntimeError("died")
        return generate(prompts, *args)

    monkeypatch.setattr(model, "generate", until_it_dies)

    def evaluate(machine: str) -> None:
        monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path / machine))
        with Workdir.given("--out", "gs://bucket/scores") as out:
            out.bring()
            evaluation.run(model, model_dir, [task], [2], Settings(), out)

    with buckets.serve("bucket"):
        with pytest.raises(RuntimeError, match="died"):
            evaluate("first")
        evaluate("second")
        store = fsspec.filesystem("gs", use_listings_cache=False)
        store.get("bucket/scores", str(tmp_path / "copy"), recursive=True)
    assert asked == [4, 2, 2]
    name = "predictions/captions_2.jsonl"
    found, want = (lines_of(place / name) for place in (tmp_path / "copy", before))
    assert {n: line["written"] for n, line in found.items()} == {
        n: line["written"] for n, line in want.items()
    }
    written = {path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    files = {"results.json", "results.md", "results.png", "settings.json", "captions_2.jsonl"}
    assert written == files


def test_predictions_made_otherwise_are_not_mixed(captions, labels, model, model_dir):
    folder, out, _ = captions
    says = "holds predictions with retrieval='random', asked for is 'rices'"
    with pytest.raises(UserError, match=says):
        run(model, model_dir, folder / "captions.jsonl", out, [2], retrieval="rices")
    folder, _ = labels
    with pytest.raises(UserError, match="holds predictions with permutations=2, asked for is 6"):
        run(model, model_dir, folder / "label.jsonl", folder / "out", [2], retrieval="rices", **SIX)


SIX = {"permutations": 6}


def test_the_number_of_orders_is_asked_for_where_there_are_orders(
    captions, model, model_dir, tmp_path
):
    """Neither written answers nor candidates without examples have any; one example has one."""
    folder, before, _ = captions
    out = tmp_path / "out"
    shutil.copytree(before, out)
    rows = run(model, model_dir, folder / "captions.jsonl", out, [2], **SIX)
    assert [row["permutations"] for row in rows] == [1, 1]
    path = drawn_benchmark.write(tmp_path, "label")
    run(model, model_dir, path, out, [0])
    run(model, model_dir, path, out, [1, 2], **SIX)
    rows = run(model, model_dir, path, out, [0])
    found = {row["shots"]: row["permutations"] for row in rows if row["task"] == "label"}
    assert found == {0: 1, 1: 1, 2: 2}
    with pytest.raises(UserError, match="holds predictions with permutations=6, asked for is 1"):
        run(model, model_dir, path, out, [1])


def test_nor_are_those_of_changed_examples_or_another_model(captions, model, model_dir, tmp_path):
    folder, before, _ = captions
    out = tmp_path / "out"
    shutil.copytree(before, out)
    path = drawn_benchmark.write(tmp_path, "captions", template="A {answer}")
    with pytest.raises(UserError, match=r"template='Output: \{answer\}', asked for"):
        run(model, model_dir, path, out, [0])
    other = tmp_path / "model"
    shutil.copytree(model_dir, other)
    card = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="predictions with card_sha256="):
        run(model, other, folder / "captions.jsonl", out, [0])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        run(model, model_dir, path, tmp_path / "full", [0])


def test_a_part_of_the_queries_is_asked_as_inside_the_whole(captions, model, model_dir, tmp_path):
    folder, before, _ = captions
    out = tmp_path / "out"
    run(model, model_dir, folder / "captions.jsonl", out, [2], num_queries=5)
    whole = lines_of(before / "predictions" / "captions_2.jsonl")
    part = lines_of(out / "predictions" / "captions_2.jsonl")
    assert len(part) == 5
    assert [line["support"] for line in part.values()] == [whole[n]["support"] for n in part]


@pytest.fixture(scope="module")
def labels(model, model_dir, tmp_path_factory):
    """Folder, and the rows with two orders, similar examples, and two seeds."""
    folder = tmp_path_factory.mktemp("labels")
    path = drawn_benchmark.write(folder, "label")
    settings = {"permutations": 2, "retrieval": "rices", "seeds": 2}
    rows = run(model, model_dir, path, folder / "out", [0, 2], **settings)
    return folder, {row["shots"]: row for row in rows}


def test_candidates_are_averaged_over_the_orders_of_the_examples(labels, model):
    folder, rows = labels
    lines = (folder / "out" / "predictions" / "label_2.jsonl").read_text().splitlines()
    line = json.loads(lines[5])
    number = [int(name[1:]) for name in line["support"]]
    shown = [
        (ImagePart(folder / f"{i}0.png"), TextPart(f"Output: {_shapes()[i][1]}"), EndOfChunk())
        for i in number
    ]
    prompts = [
        Prompt("", (*a, *b, ImagePart(folder / "51.png"), TextPart("Output:")))
        for a, b in (shown, shown[::-1])
    ]
    found = model.likelihoods(prompts, [[" circle", " square"]] * 2)
    np.testing.assert_allclose(line["logprobs"], np.mean(found, axis=0), atol=1e-4)
    assert rows[2]["permutations"] == 2
    assert rows[2]["score_of_seeds"][0] == rows[2]["score_of_seeds"][1]  # the pool is all
    assert rows[2]["std_over_seeds"] == 0


def test_large_features_are_shown_to_fewer_queries_at_once(labels, model, model_dir, monkeypatch):
    folder, rows = labels
    monkeypatch.setattr(row_lib, "_MAX_BYTES", 1)
    calls, likelihoods = [], model.likelihoods
    monkeypatch.setattr(
        model,
        "likelihoods",
        lambda prompts, texts: calls.append(prompts) or likelihoods(prompts, texts),
    )
    settings = {"permutations": 2, "retrieval": "rices", "seeds": 2}
    (_, row) = run(model, model_dir, folder / "label.jsonl", folder / "one", [0, 2], **settings)
    assert {len(prompts) for prompts in calls} == {1, 2}  # orders of one query
    assert row["score"] == pytest.approx(rows[2]["score"])


def test_similar_examples_stand_last(labels):
    """Of two queries a copy is among the support examples; nothing is nearer."""
    folder, _ = labels
    lines = (folder / "out" / "predictions" / "label_2.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        if line["id"] in ("q4", "q5"):
            assert line["support"][-1] == f"s{line['id'][1]}"
        else:
            assert f"s{line['id'][1]}" not in line["support"]


def test_candidates_without_examples_are_asked_once(labels):
    folder, rows = labels
    assert rows[0]["seeds"] == [0]
    assert rows[0]["example_prompt"] == "<BOS><image>Output:"
    found = lines_of(folder / "out" / "predictions" / "label_0.jsonl")
    right = [line["text"] == line["references"][0] for line in found.values()]
    assert rows[0]["score"] == pytest.approx(100 * np.mean(right))


def test_candidates_without_examples_want_no_pictures_of_examples(model, model_dir, tmp_path):
    """They may all be missing; what is drawn later is written down when it is."""
    path = drawn_benchmark.write(tmp_path, "label")
    pictures = list(tmp_path.glob("?0.png"))
    for picture in pictures:
        picture.rename(picture.with_suffix(".away"))
    for number in range(4):  # queries of the same pictures as examples
        (tmp_path / f"{number}0.away").rename(tmp_path / f"{number}0.png")
    (tmp_path / "50.away").rename(tmp_path / "50.png")
    out = tmp_path / "out"
    (row,) = run(model, model_dir, path, out, [0], retrieval="rices", seeds=2)
    assert (row["num_queries"], row["num_support"], row["skipped_support"]) == (6, 0, {})
    with pytest.raises(UserError, match=r"1 of 6 support examples cannot be read \(1 not_found\)"):
        run(model, model_dir, path, out, [0, 2], retrieval="rices")
    rows = run(model, model_dir, path, out, [0, 2], retrieval="rices", max_skipped_share=0.5)
    assert [row["num_support"] for row in rows] == [5, 5]
    run(model, model_dir, path, out, [0], retrieval="rices")


def test_unreadable_pictures_are_left_out_and_counted(model, model_dir, tmp_path):
    path = drawn_benchmark.write(tmp_path, "label")
    (tmp_path / "51.png").unlink()  # of query 5
    (tmp_path / "50.png").write_bytes(b"no picture")  # of support example 5
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"1 of 6 queries cannot be read \(1 not_found\), as .*51"):
        run(model, model_dir, path, out, [1])
    (row,) = run(model, model_dir, path, out, [1], max_skipped_share=0.2)
    assert row["num_queries"] == row["num_support"] == 5
    assert row["skipped_queries"] == {"not_found": 1}
    assert row["skipped_support"] == {"not_an_image": 1}
    shutil.copy(tmp_path / "40.png", tmp_path / "50.png")  # the pool grows: other draws
    with pytest.raises(UserError, match="predictions with unreadable_support_0='s5', asked"):
        run(model, model_dir, path, out, [1], max_skipped_share=0.2)
    assert "queries: 1 not_found; support: 1 not_an_image |" in (out / "results.md").read_text()


def test_without_matplotlib_there_is_all_but_the_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    figure.draw([], "demo", tmp_path / "results.png")
    said = capsys.readouterr().err
    assert "is not drawn, for matplotlib is not installed: pip install matplotlib" in said
    assert said.count("\n") == 1


def test_without_support_examples_there_are_no_shots(model, model_dir, tmp_path):
    path = drawn_benchmark.write(tmp_path, "question")
    kept = [line for line in path.read_text().splitlines() if '"support"' not in line]
    path.write_text("\n".join(kept))
    with pytest.raises(UserError, match=r"0 shots want some \(0 shots are 2 examples"):
        run(model, model_dir, path, tmp_path / "out", [0])


def test_a_fine_tuned_model_is_asked_with_the_query_alone(captions, model, model_dir, tmp_path):
    """It needs no examples; what it writes is kept apart from what two texts make it write."""
    folder, _, _ = captions
    path, out = folder / "alone.jsonl", tmp_path / "out"
    lines = (folder / "captions.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"support"' not in line))
    (row,) = run(model, model_dir, path, out, [0], zero_shot_texts=0, seeds=3)
    assert (row["zero_shot_texts"], row["seeds"], row["num_support"]) == (0, [0], 0)
    assert row["example_prompt"] == "<BOS><image>Output:"
    assert len(lines_of(out / "predictions" / "captions_0.jsonl")) == 6
    path.write_text("".join(lines))
    shutil.rmtree(out)
    (out / "predictions").mkdir(parents=True)
    task, identity = jsonl.read(path, "Output: {}"), settings.model_identity(model_dir)

    def check(shots, texts):
        asked_for = Settings(zero_shot_texts=texts)
        settings.check(out / "predictions", identity, asked_for, task, shots)

    check([0], 0)
    (out / "predictions" / "captions_0.jsonl").touch()
    check([2], 2)
    with pytest.raises(UserError, match="with zero_shot_texts=0, asked for is 2: give another"):
        check([0, 2], 2)
    (out / "predictions" / "settings.json").unlink()  # of before it was written down
    with pytest.raises(UserError, match="with zero_shot_texts=2, asked for is 0: give another"):
        check([0], 0)
