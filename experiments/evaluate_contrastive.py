r"""Scores a contrastive model on benchmarks by its two towers alone, without examples.

    python -m experiments.evaluate_contrastive --model=runs/towers --tasks=imagenet,coco \
        --data_dir=data/benchmarks --out=runs/towers/scores

Of tasks with classes (imagenet, kinetics700, or jsonl:PATH with labels) the nearest class is the
answer; of tasks with captions (coco, flickr30k, vatex, youcook2, or jsonl:PATH) it is recall at 1,
5 and 10 in both directions. docs/evaluation.md says which files each task reads. Stopped, the same
command goes on with the pictures that it had not embedded yet.
"""

import sys

from absl import flags

from experiments import cli
from experiments.evaluation import contrastive_evaluation
from experiments.storage import given_model
from experiments.storage.workdir import Workdir
from flamingo_jax import contrastive_model
from flamingo_jax.eval import zero_shot
from flamingo_jax.eval.tasks import catalog

_MODEL = flags.DEFINE_string(
    "model", None, "Workdir of pretrain_contrastive, its model/ or a checkpoint; may be gs://..."
)
_TASKS = flags.DEFINE_list("tasks", None, "Benchmarks by name, or jsonl:PATH for one of your own.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the benchmarks' files.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; may be gs://BUCKET/FOLDER.")
_NUM_QUERIES = flags.DEFINE_integer("num_queries", None, "Of each task; all if not given.", 1)
_TEMPLATES = flags.DEFINE_string("templates", None, "File of descriptions, a line each, with {}.")
_MAX_SKIPPED_SHARE = flags.DEFINE_float(
    "max_skipped_share",
    0.1,
    "Stop where a larger share of a task's pictures cannot be read, 0 to 1.",
)
flags.mark_flags_as_required(["model", "tasks", "out"])

_TEMPLATE = "{}"  # of captions, which here nothing is written around


def main() -> None:
    """Scores every task."""
    with Workdir.given("--out", _OUT.value) as out:
        _evaluate(out)
    print(f"results: {out}/results.md")


def _evaluate(out: Workdir) -> None:
    directory = given_model.folder("--model", _MODEL.value)
    data_dir = None if _DATA_DIR.value is None else cli.local_path("--data_dir", _DATA_DIR.value)
    with cli.user_input():
        settings = contrastive_evaluation.Settings(
            _NUM_QUERIES.value, _MAX_SKIPPED_SHARE.value, _templates()
        )
        names = list(dict.fromkeys(filter(None, _TASKS.value)))
        tasks = [catalog.read(name, data_dir, _TEMPLATE) for name in names]
    out.bring()
    contrastive_evaluation.check_folder(out.folder)
    if not tasks:
        raise cli.UserError("--tasks is empty: name a benchmark, or jsonl:PATH")
    for task in tasks:
        contrastive_evaluation.check(task)
    directory = contrastive_model.find(directory)
    model = contrastive_model.load(directory)
    out.folder.mkdir(parents=True, exist_ok=True)
    out.begin()
    contrastive_evaluation.run(model, directory, tasks, settings, out, sys.argv)


def _templates() -> list[str]:
    """Those of the file; none where none was given."""
    if _TEMPLATES.value is None:
        return []
    return zero_shot.read_templates(cli.local_path("--templates", _TEMPLATES.value))


if __name__ == "__main__":
    cli.run(main)
