"""The end of a run: its clock, and an evaluation that survives what the data holds."""

import json
import time
import types
import unittest.mock

import numpy as np
import pytest

from data_pipelines.demo import synthetic
from data_pipelines.reading import record_index
from experiments.configs import flamingo
from experiments.reporting.report_data import Report, SamplePicture
from experiments.training import datasets, run_report
from experiments.training.run_report import Clock
from flamingo_jax.config import ImagePreprocessing


def test_a_clock_goes_on_from_the_time_that_was_kept(tmp_path):
    first = Clock.start(tmp_path, time.monotonic())
    first.save()
    kept_s = json.loads(first.path.read_text())["wall_s"]
    assert kept_s > 0
    assert Clock.start(tmp_path, time.monotonic()).wall_s() > kept_s


@pytest.mark.parametrize("text", ["", "[]", '{"wall_s": null}'])
def test_a_clock_that_is_damaged_says_what_to_do(tmp_path, text):
    clock = Clock.start(tmp_path, time.monotonic())
    clock.path.write_text(text)
    with pytest.raises(ValueError, match=r"clock\.json is damaged: delete it"):
        Clock.start(tmp_path, time.monotonic())


def test_saving_never_cuts_the_file_that_a_restart_would_read(tmp_path):
    """A file that is written over in place is empty for a moment, and a kill then leaves it so."""
    clock = Clock.start(tmp_path, time.monotonic())
    clock.save()
    whole = clock.path.read_text()
    with clock.path.open() as before:
        clock.save()
        assert before.read() == whole
    assert [file.name for file in tmp_path.iterdir()] == [clock.path.name]


BAD = ("truncated", "not_an_image", "no_image")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    synthetic.prepare(path, BAD)
    return path


def recipe(data_dir, **changes):
    """Every query and example there is; the split `train` holds bad records."""
    config = flamingo.get_config("micro")
    config.data.dir = str(data_dir)
    config.report.num_queries = 1000
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


class AnyModel:
    """Stands in for a model: answers whatever it is asked with pictures that can be decoded."""

    caption_template = "It is {}"
    params = types.MappingProxyType({"vision": {}})
    config = types.SimpleNamespace(
        vision=types.SimpleNamespace(preprocessing=ImagePreprocessing(32))
    )
    tokenizer = types.SimpleNamespace(encode_behind=lambda before, text: text.split())

    def likelihoods(self, asked, texts):
        return [-np.arange(1.0, 1 + len(row)) for row in texts]

    def generate(self, asked, decoding):
        return [types.SimpleNamespace(text=" a red circle")] * len(asked)


def test_sample_pictures_stand_at_the_last_step(tmp_path, capsys):
    """TensorBoard showed what the finished model wrote at step 0."""
    sample = SamplePicture(np.zeros((8, 8, 3), np.uint8), "a cat", ("a dog",))
    writer = unittest.mock.Mock()
    report = Report("micro", 1.0, 0.5, samples=[sample])
    run_report.write(types.SimpleNamespace(folder=tmp_path), report, [writer], 7)
    writer.write_samples.assert_called_once_with(7, [sample])
    assert capsys.readouterr().out.startswith("model: ")


def test_bad_records_are_left_out_of_an_evaluation_and_counted(data_dir):
    """Among the examples each is looked at, among the queries those that are drawn."""
    turned = {"data__heldout__split": "train", "data__heldout__support": "heldout"}
    as_queries = run_report.evaluate(recipe(data_dir, **turned), AnyModel(), None)
    assert as_queries["heldout_skipped"]["not_one_medium"] == 1
    found = run_report.evaluate(recipe(data_dir), AnyModel(), None)
    assert found["heldout_skipped"] == {"truncated": 1, "not_an_image": 1, "not_one_medium": 1}
    assert [score.shots for score in found["few_shot"]] == [0, 4]
    assert found["heldout"].rank1.mean == 1.0
    assert found["notes"] == []


def test_where_names_are_few_it_ranks_among_those(data_dir):
    found = run_report.evaluate(recipe(data_dir, report__num_candidates=24), AnyModel(), None)
    names = {d.text for d in synthetic.pairs("heldout")}
    assert found["heldout"].num_candidates == len(names) < 24
    assert found["notes"] == [f"Ranked among {len(names)} names: there are no more different ones."]
    assert f"rank1_of_{len(names)}" in found["heldout"].to_json()


@pytest.mark.parametrize(
    "changes", [{"data__heldout__split": "heldout[:1]"}, {"report__num_queries": 1}]
)
def test_with_one_query_there_are_no_scores_and_a_note(data_dir, changes):
    found = run_report.evaluate(recipe(data_dir, **changes), AnyModel(), None)
    assert "heldout" not in found
    assert found["notes"][0].startswith("No held-out scores: 1 usable")


def test_shots_for_which_examples_are_missing_are_left_out(data_dir):
    one_split = {"data__heldout__split": "heldout[:4]", "data__heldout__support": "heldout[:4]"}
    found = run_report.evaluate(recipe(data_dir, **one_split), AnyModel(), None)
    assert [score.shots for score in found["few_shot"]] == [0]
    assert found["notes"][-1] == "Not captioned with 4 shots: only 3 usable examples."


def test_of_a_large_split_only_the_drawn_records_are_read(data_dir, monkeypatch):
    config = recipe(data_dir)
    whole = [d.id for d in datasets.documents(config, "synthetic_pairs", "heldout")]
    assert len(whole) == 24
    read = []
    read_one = record_index.RecordIndex.read
    monkeypatch.setattr(
        record_index.RecordIndex, "read", lambda self, i: read.append(i) or read_one(self, i)
    )

    def draw(count):
        documents, bad = datasets.draw_documents(config, "synthetic_pairs", "heldout", count)
        assert not bad
        return [d.id for d in documents]

    drawn = draw(7)
    assert drawn == [whole[i] for i in read]
    assert len(set(read)) == 7
    assert read != list(range(7))
    assert draw(7) == drawn
    assert draw(0) == draw(24) == whole
    config.seed += 1
    assert draw(7) != drawn
