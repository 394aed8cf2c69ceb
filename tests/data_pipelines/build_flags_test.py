"""Flags of `data_pipelines.build`: those that documents name exist, and Beam gets its own."""

import pathlib
import re
import shlex

import pytest

from data_pipelines import benchmark, build, commands, index, inspect


def documented() -> list[list[str]]:
    text = pathlib.Path(build.__file__).parents[1].joinpath("docs", "data.md").read_text()
    return [
        shlex.split(line)[3:]
        for line in re.findall(r"^python -m data_pipelines.build .*", text, re.M)
    ]


@pytest.mark.parametrize("words", documented(), ids=lambda words: " ".join(words)[:40])
def test_flags_of_documented_commands_exist(words):
    parser = commands.Parser()
    for name in ("source", "input", "output"):
        parser.add_argument(f"--{name}", required=True)
    source = parser.parse_known_args(words)[0].source
    build.SOURCES[source].add_flags(parser)
    build._check_beam_flags(parser.parse_known_args(words)[1])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (build, ["--source=text", "--input=a.jsonl", "--output="]),
        (inspect, ["--data=data", "--out="]),
        (inspect, ["--data=", "--out=look"]),
        (index, ["--data="]),
        (benchmark, ["--data="]),
    ],
)
def test_an_empty_folder_is_not_taken_for_this_one(monkeypatch, capsys, command, words):
    """As of a shell variable that is not set."""
    monkeypatch.setattr("sys.argv", ["command", *words])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert re.fullmatch(
        r"error: argument --(out|output|data): is empty: give a folder \(see --help\)\n",
        capsys.readouterr().err,
    )


def test_beam_flags_are_passed_on_and_no_others():
    build._check_beam_flags(["--direct_num_workers=2", "--runner=FlinkRunner", "--project", "x"])
    with pytest.raises(ValueError, match="--runer"):
        build._check_beam_flags(["--runer=FlinkRunner"])
    assert build._dataset_name(build.epath.Path("data/My Pages/1.0.0")) == "my_pages"
    assert build._dataset_name(build.epath.Path("data/pages")) == "pages"
    assert build._dataset_name(build.epath.Path("/1")) == "data_1"
    assert build._dataset_name(build.epath.Path("data/Ünï-cödé 猫/1.0.0")) == "n_c_d"
    assert build._dataset_name(build.epath.Path("data/猫/1.0.0")) == "data"
