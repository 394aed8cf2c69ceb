"""results.md and results.png: scores beside the paper's, and only where they are the paper's."""

import json

import pytest

from experiments import cli
from experiments.evaluation import figure, results
from experiments.evaluation.results import Result

ABOUT = {
    "model": {"directory": "runs/demo", "card_sha256": "a", "weights_sha256": "b"},
    "settings": {"retrieval": "random"},
}


def result(task: str, shots: int, score: float | None, **changes) -> Result:
    values = {
        "task": task,
        "shots": shots,
        "is_own": False,
        "metric": "cider",
        "scorer": "CIDEr-D 1",
        "split": "test",
        "prompt_template": "Output: {answer}",
        "example_prompt": "<BOS><image>Output:",
        "decoding": "beam search",
        "zero_shot_texts": None if shots else 2,
        "retrieval": "random",
        "permutations": 1,
        "seeds": (0,),
        "num_queries": 10,
        "num_support": 20,
        "skipped_queries": {},
        "skipped_support": {},
        "score": score,
    }
    if score is not None:
        values |= {"low": score - 1, "high": score + 2, "score_of_seeds": (score,)}
    return Result(**values | changes)


def test_the_papers_scores_stand_below_ones_own(tmp_path):
    rows = results.write(
        tmp_path,
        ABOUT,
        [
            result("coco", 0, 50.0),
            result("coco", 4, 60.0, score_of_seeds=(59.0, 61.0)),
            result("coco", 32, None, note="out of context: 900 tokens, the model reads 256"),
        ],
    )
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| task | metric | queries | 0 shots | 4 shots | 32 shots |" in lines
    assert (
        "| coco | cider | 10 | 50.0 (49.0 to 52.0) | 60.0 (59.0 to 62.0, ± 1.4 over seeds) | OOC |"
    ) in lines
    assert "| coco, Flamingo-9B (paper) | | | 79.4 | 93.1 | 106.3 |" in lines
    assert "- coco, 32 shots: out of context: 900 tokens, the model reads 256" in lines
    figure.draw(rows, "demo", tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_is_asked_with_the_query_alone_stands_beside_the_fine_tuned_one(tmp_path):
    bare = [result(name, 0, 50.0, zero_shot_texts=0) for name in ("coco", "okvqa")]
    rows = results.write(tmp_path, ABOUT, [*bare, result("coco", 4, 60.0)])
    assert [row["zero_shot_texts"] for row in rows] == [0, None, 0]
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| coco, Flamingo-80B, fine-tuned (paper) | | | 138.1 |  |" in lines
    assert "| coco, Flamingo-80B (paper) | | |  | 103.2 |" in lines
    assert not any(line.startswith("| okvqa, ") for line in lines)
    figure.draw(rows, "mine", tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_rows_of_a_part_of_the_queries_do_not_pass_for_all(tmp_path):
    scores = [result("coco", 0, 50.0, num_queries=100), result("coco", 4, 60.0, num_queries=5_000)]
    results.write(tmp_path, ABOUT, scores)
    table = (tmp_path / "results.md").read_text()
    assert "| coco | cider | 100 to 5,000 | 50.0 (49.0 to 52.0) | 60.0" in table


def test_a_bar_in_a_name_or_a_prompt_stays_in_its_cell(tmp_path):
    template = "a|b {answer}"
    results.write(tmp_path, ABOUT, [result("x|y", 0, 50.0, prompt_template=template)])
    table = (tmp_path / "results.md").read_text()
    assert r"| x\|y | cider | 10 | 50.0 (49.0 to 52.0) |" in table
    assert r"| x\|y | test | `a\|b {answer}` | beam search | none |" in table


def test_a_file_of_ones_own_called_coco_is_not_the_papers(tmp_path):
    (row,) = results.write(tmp_path, ABOUT, [result("coco", 0, 50.0, is_own=True)])
    assert row["published"] == {}
    assert "paper)" not in (tmp_path / "results.md").read_text()


def test_rows_of_earlier_commands_stay_unless_they_are_another_models(tmp_path):
    results.write(tmp_path, ABOUT, [result("coco", 0, 50.0), result("coco", 4, 60.0)])
    rows = results.write(tmp_path, ABOUT, [result("coco", 4, 70.0), result("okvqa", 4, 1.0)])
    found = [(row["task"], row["shots"], row["score"]) for row in rows]
    assert found == [("coco", 0, 50.0), ("coco", 4, 70.0), ("okvqa", 4, 1.0)]
    assert json.loads((tmp_path / "results.json").read_text())["results"] == rows
    other = ABOUT | {"model": ABOUT["model"] | {"weights_sha256": "c"}}
    assert len(results.write(tmp_path, other, [result("coco", 8, 1.0)])) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": None}, "a row has no 'metric': delete the file"),
        ({"retrieval": None}, "a row has no 'retrieval': delete the file"),
        ({"shots": "?"}, "a row cannot be shown .*: delete the file"),
        ({"low": "?"}, "a row cannot be shown .*: delete the file"),
        ({"skipped_queries": [1]}, "a row cannot be shown .*: delete the file"),
    ],
)
def test_a_row_that_lacks_something_or_cannot_be_shown_is_told(tmp_path, changes, says):
    (row,) = results.write(tmp_path, ABOUT, [result("coco", 0, 50.0)])
    row = {key: value for key, value in (row | changes).items() if value is not None}
    text = json.dumps(ABOUT | {"results": [row]})
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(cli.UserError, match=rf"results\.json: {says}"):
        results.write(tmp_path, ABOUT, [result("coco", 4, 60.0)])
    assert (tmp_path / "results.json").read_text() == text
