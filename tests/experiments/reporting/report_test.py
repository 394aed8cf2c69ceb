"""The report's files: the promised keys, whole pictures, and runs with parts missing."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from experiments.reporting import report, report_figure
from experiments.reporting.report import write_report
from experiments.reporting.report_data import (
    DataCount,
    FewShotScore,
    Heldout,
    Report,
    SamplePicture,
)
from flamingo_jax.eval.bootstrap import Interval
from flamingo_jax.train.metrics import JsonlWriter

GREEN = np.array([26, 127, 75])


def sample(written="a cat", *truth):
    return SamplePicture(np.full((16, 16, 3), 200, np.uint8), written, truth or ("a cat",))


def few_shot(shots, retrieval, mean, rank1=None):
    return FewShotScore(shots, retrieval, Interval(mean, mean - 0.1, mean + 0.1, 50), rank1)


FULL = Report(
    variant="demo",
    wall_s=600.0,
    peak_rss_gib=5.0,
    data={"emoji": DataCount(1446, 3, {"truncated": 3})},
    heldout=Heldout(
        nll_right=3.0,
        nll_shuffled=4.5,
        nll_difference=Interval(1.5, 1.2, 1.8, 160),
        rank1=Interval(0.3, 0.25, 0.35, 160),
        rank1_per_token=Interval(0.4, 0.35, 0.45, 160),
        mean_reciprocal_rank=0.5,
        num_candidates=40,
    ),
    few_shot=[
        few_shot(8, "random", 0.6),
        few_shot(0, "random", 0.4),
        few_shot(4, "random", 0.5),
        few_shot(4, "rices", 0.7, rank1=Interval(0.6, 0.5, 0.7, 160)),
    ],
    samples=[sample() for _ in range(7)],
    heldout_skipped={"video": 2, "truncated": 1},
    notes=["Flags are left out."],
)


@pytest.fixture
def workdir(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    for step in range(1, 30):
        writer.write(
            {"step": step, "loss": 3 / step, "loss/emoji": 2 / step, "gate/8": 0.01 * step}
        )
    writer.close()
    return tmp_path


def test_json_has_the_promised_keys_and_values(workdir):
    write_report(workdir, FULL)
    values = json.loads((workdir / "report.json").read_text())
    assert values["wall_s"] == 600.0
    assert values["peak_rss_gib"] == 5.0
    assert values["steps"] == 29
    heldout = values["heldout"]
    assert [heldout[k] for k in ("nll_right", "nll_shuffled", "rank1_of_40", "num_queries")] == [
        3.0, 4.5, 0.3, 160,
    ]  # fmt: skip
    per_token = [heldout[f"rank1_of_40_per_token{end}"] for end in ("", "_low", "_high")]
    assert per_token == [0.4, 0.35, 0.45]
    assert [heldout[f"nll_difference{end}"] for end in ("_low", "_high")] == [1.2, 1.8]
    assert values["heldout_skipped"] == {"video": 2, "truncated": 1}
    assert list(values["few_shot"]) == ["0", "4", "8"]
    four = values["few_shot"]["4"]
    assert four["retrieval"] == "rices"
    assert [four[k] for k in ("cider", "low", "high", "num_queries")] == pytest.approx(
        [70, 60, 80, 50]
    )
    assert [four[f"rank1_of_40{end}"] for end in ("", "_low", "_high")] == [0.6, 0.5, 0.7]
    assert four["random"]["cider"] == pytest.approx(50)
    assert four["rank1_num_queries"] == 160
    assert "rank1_of_40" not in four["random"]
    assert values["few_shot"]["8"]["cider"] == pytest.approx(60)
    emoji = values["data"]["emoji"]
    assert emoji == {"examples": 1446, "skipped": 3, "reasons": {"truncated": 3}}


def test_no_unfinished_files_are_left_and_the_picture_is_whole(workdir):
    write_report(workdir, FULL)
    assert {p.name for p in workdir.iterdir()} == {
        "metrics.jsonl", "report.json", "report.md", "report.png",
    }  # fmt: skip
    with Image.open(workdir / "report.png") as picture:
        picture.load()
        assert picture.width == 1540


def test_markdown_says_the_same_numbers(workdir):
    write_report(workdir, FULL)
    text = (workdir / "report.md").read_text()
    for part in (
        "3.000 nats",
        "| difference | 1.500 (1.200 to 1.800) nats a token |",
        "| the same by likelihood a token | 40.0% (35.0% to 45.0%) of 160 queries |",
        "could not be used: truncated 1, video 2.",
        "| right name first of 40 | 30.0% (25.0% to 35.0%) of 160 queries; chance 2.5% |",
        "| 4 | rices | 70.0 | 60.0 to 80.0 | 50 | 60.0% (50.0% to 70.0%) of 160 queries |",
        "| 4 | random | 50.0 | 40.0 to 60.0 | 50 |  |",
        "| emoji | 1446 | 3 | truncated 3 |",
        "Flags are left out.",
        "| steps | 29 |",
        "| last training loss | emoji 0.069 nats a token |",
    ):
        assert part in text


def validated(step, right, other):
    return {
        "step": step, "loss": 3.0, "loss/emoji": 3.0,
        "validation/emoji": right, "validation_shuffled/emoji": other,
        "validation_difference/emoji": None if other is None else other - right,
    }  # fmt: skip


def test_validation_is_drawn_beside_the_training_loss_and_its_last_values_told(tmp_path):
    rows = [validated(4, 3.5, 3.5), validated(6, 3.0, None), validated(8, 2.25, 4.125)]
    figure = report_figure.draw_report(Report("demo", 1.0, 1.0), rows)
    ax = axes_titled(figure, "Training loss, and held out")
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines["emoji, held out"] == [[4, 3.5], [8, 2.25]]
    assert lines["emoji, other pictures"] == [[4, 3.5], [8, 4.125]]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["emoji", "emoji, other pictures", "emoji, held out"]
    assert len({line.get_color() for line in ax.get_lines()}) == 1  # as one dataset
    text = report.render_markdown(Report("demo", 1.0, 1.0), [*rows, {"step": 9, "loss": 2.0}])
    line = "| validation of emoji, step 8 | 2.250 nats a token; 4.125 with another row's pictures |"
    assert line in text.splitlines()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(tmp_path, Report("demo", 1.0, 1.0))
    assert json.loads((tmp_path / "report.json").read_text())["validation"] == {"emoji": 2.25}


def test_the_number_of_candidates_is_told(workdir):
    few = dataclasses.replace(FULL.heldout, num_candidates=4)
    write_report(workdir, dataclasses.replace(FULL, heldout=few))
    heldout = json.loads((workdir / "report.json").read_text())["heldout"]
    assert heldout["rank1_of_4"] == 0.3
    assert "rank1_of_40" not in heldout
    text = (workdir / "report.md").read_text()
    assert "right name first of 4 |" in text
    assert "chance 25.0%" in text


def test_a_run_without_a_held_out_set_leaves_those_parts_out(workdir):
    write_report(workdir, Report("micro", 12.0, 0.5))
    values = json.loads((workdir / "report.json").read_text())
    assert not {"heldout", "few_shot", "samples"} & set(values)
    assert "Few-shot" not in (workdir / "report.md").read_text()


def test_a_workdir_without_metrics_still_gets_a_report(tmp_path):
    write_report(tmp_path, Report("micro", 12.0, 0.5))
    assert json.loads((tmp_path / "report.json").read_text())["steps"] == 0
    assert (tmp_path / "report.png").stat().st_size > 0


def test_a_torn_last_metrics_line_is_skipped(workdir):
    with (workdir / "metrics.jsonl").open("a") as f:
        f.write('{"step": 30, "l')
    write_report(workdir, Report("micro", 12.0, 0.5))
    assert json.loads((workdir / "report.json").read_text())["steps"] == 29


@pytest.mark.parametrize(
    ("written", "truth", "right"),
    [
        ("A  cat. ", ("a cat",), True),
        ("kitty", ("a cat", "Kitty"), True),
        ("a cat on a mat", ("a cat",), False),
        ("", ("a cat",), False),
    ],
)
def test_right_means_one_of_the_true_names(written, truth, right):
    assert sample(written, *truth).right is right


def test_a_right_text_is_drawn_in_green_and_a_wrong_one_is_not(tmp_path):
    def greens(values):
        write_report(tmp_path, values)
        pixels = np.asarray(Image.open(tmp_path / "report.png")).astype(int)
        return (abs(pixels - GREEN).sum(-1) < 10).sum()

    assert greens(Report("demo", 1.0, 1.0, samples=[sample("a cat")])) > 500
    assert greens(Report("demo", 1.0, 1.0, samples=[sample("a dog")])) == 0


def test_odd_texts_are_drawn(workdir):
    odd = ["$x^2_", "a|b\nc", "日本", "x" * 500, "{} % \\frac"]
    write_report(workdir, Report("demo", 1.0, 1.0, samples=[sample(t, t) for t in odd]))
    rows = [r for r in (workdir / "report.md").read_text().splitlines() if r.endswith("yes |")]
    assert len(rows) == 5


def axes_titled(figure, title):
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith(title)]
    return found


def test_many_datasets_are_told_apart_and_leave_room_for_their_curves():
    names = [f"loss/{'long' * 10}{i:02d}" for i in range(20)]
    rows = [{"step": step} | {name: 1.0 * step for name in names} for step in (1, 2)]
    ax = axes_titled(report_figure.draw_report(Report("3b", 1.0, 1.0), rows), "Training loss")
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(legend) == len(set(legend)) == 12
    assert max(map(len, legend)) <= 24
    assert ax.get_legend().get_title().get_text() == "12 of 20 datasets"
    smooth = ax.get_lines()[1::2]
    assert len({(line.get_color(), line.get_linestyle()) for line in smooth}) == 20


def test_a_share_of_zero_has_a_label_that_can_be_read():
    none = dataclasses.replace(FULL.heldout, rank1=Interval(0.0, 0.0, 0.32, 8))
    figure = report_figure.draw_report(Report("demo", 1.0, 1.0, heldout=none), [])
    ax = axes_titled(figure, "Right name first")
    (label,) = [text for text in ax.texts if text.get_text() == "0%"]
    assert label.xy[1] >= 32  # above the interval
    assert label.get_color() == "#22262b"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a cat", "a cat"),
        ("x" * 24, "x" * 24),
        ("a white cat sits on the mat", "a white cat sits on the\nmat"),
        ("word " * 30, "word word word word word\nword word word word ..."),
        ("x" * 50, f"{'x' * 24}\n{'x' * 20} ..."),
        ("猫" * 20, f"{'猫' * 12}\n{'猫' * 8}"),
        ("猫" * 30, f"{'猫' * 12}\n{'猫' * 10} ..."),
        ("a 猫" + "x" * 21, f"a 猫\n{'x' * 21}"),
    ],
)
def test_texts_are_wrapped_by_the_width_of_their_letters(text, lines):
    assert report_figure._wrap(text) == lines
