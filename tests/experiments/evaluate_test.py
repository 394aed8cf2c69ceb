"""The command experiments.evaluate: one line and status 2 for what a user can mend."""

import json
import pathlib
import subprocess
import sys
import textwrap

import pytest

from tests import drawn_model
from tests.experiments.evaluation import drawn_benchmark
from tests.experiments.prompt_files import ROOT

# Each in a process of its own, as flags are global; forked behind the imports, which take seconds.
SCRIPT = textwrap.dedent(
    """
    import json
    import os
    import sys
    import tempfile
    from experiments import cli, evaluate

    def end(arguments):
        files = [tempfile.TemporaryFile() for _ in range(2)]
        child = os.fork()
        if not child:
            os.dup2(files[0].fileno(), 1)
            os.dup2(files[1].fileno(), 2)
            sys.argv[1:] = arguments
            cli.run(evaluate.main)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in files:
            file.seek(0)
        return status, *(file.read().decode() for file in files)

    print(json.dumps([end(arguments) for arguments in json.loads(sys.argv[1])]))
    """
)

ENDS = [
    ([], "Flag --model must have a value other than None"),
    (["--tasks=coko"], "no task 'coko': did you mean 'coco'? offered are coco, flickr30k"),
    (["--tasks=coco", "--max_skipped_share=nan"], "max_skipped_share=nan: use a share of the "),
    (["--tasks=coco", "--max_skipped_share=1.5"], "max_skipped_share=1.5: use a share of the "),
    (["--tasks=nextqa"], "task 'nextqa' reads files in --data_dir, which is not given"),
    (["--tasks=coco"], "task 'coco' reads files in --data_dir, which is not given"),
    (
        ["--tasks=coco", "--data_dir={folder}"],
        "{folder}/coco/dataset_coco.json: no such file; it comes from ",
    ),
    (["--tasks=jsonl:none.jsonl"], "none.jsonl: no such file"),
    (["--tasks=jsonl:{broken}"], "{broken}:1: not JSON at column 1"),
    (["--tasks=jsonl:{label},jsonl:{label}", "--shots=0,x"], "--shots: 'x' is no number"),
    (["--tasks=,"], "--tasks is empty"),
    (["--tasks=jsonl:{label}", "--model={full}"], "{full} holds no model.json"),
    (["--tasks=jsonl:{label}", "--out=gs://b/x"], "--out=gs://b/x: give gs://BUCKET/FOLDER"),
    (["--tasks=jsonl:{label}", "--out={full}"], "{full} holds other files: give another --out"),
    (
        ["--tasks=jsonl:{label}", "--permutations=0"],
        "--permutations=0: 0 is not a positive integer",
    ),
]
GOOD = ["--tasks=jsonl:{label}", "--shots=0", "--out={folder}/scores"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The values of places, and (status, output, errors) by arguments."""
    folder = tmp_path_factory.mktemp("evaluate")
    drawn_model.save(folder / "model", drawn_benchmark.model_config())
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("x")
    (folder / "broken.jsonl").write_text("x\n")
    places = {
        "folder": str(folder),
        "full": str(folder / "full"),
        "broken": str(folder / "broken.jsonl"),
        "label": str(drawn_benchmark.write(folder, "label")),
    }
    asked = {str(arguments): arguments for arguments in (*(a for a, _ in ENDS), GOOD)}
    usual = {"--model": f"{folder}/model", "--out": f"{folder}/out"}

    def whole(arguments: list[str]) -> list[str]:
        given = [argument.format_map(places) for argument in arguments]
        names = {argument.partition("=")[0] for argument in given}
        return given + [f"{n}={v}" for n, v in usual.items() if n not in names and given]

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([whole(a) for a in asked.values()])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return places, dict(zip(asked, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("arguments", "says"), ENDS, ids=str)
def test_what_a_user_can_mend_gets_one_line_and_status_2(ended, arguments, says):
    places, found = ended
    status, output, errors = found[str(arguments)]
    assert (status, output) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert says.format_map(places) in errors


def test_a_good_command_says_where_the_results_are(ended):
    places, found = ended
    status, output, errors = found[str(GOOD)]
    assert status == 0, errors
    assert output == f"results: {places['folder']}/scores/results.md\n"
    assert "label, 0 shots: 6 of 6 queries in" in errors
    written = pathlib.Path(places["folder"], "scores", "results.json").read_text()
    (row,) = json.loads(written)["results"]
    assert row["metric"] == "top1"
