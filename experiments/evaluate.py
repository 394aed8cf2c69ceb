r"""Scores a finished model on benchmarks, with examples in the prompt.

    python -m experiments.evaluate --model=runs/demo --tasks=coco,okvqa --shots=0,4,8 \
        --data_dir=data/benchmarks --out=runs/demo/scores
    python -m experiments.evaluate --model=runs/demo --tasks=jsonl:mine.jsonl --shots=0,4 --out=mine

docs/evaluation.md says of each task which files it reads from --data_dir, how it asks and how it
scores, and how to write a benchmark of your own. --out gets results.json, results.md, results.png
and predictions/TASK_SHOTS.jsonl. Stopped, the same command goes on where it was. Several processes
(`launch.local`, a TPU slice) evaluate together; process 0 alone reads and writes --out.
"""

import sys

from absl import flags

from experiments import cli
from experiments.asking import asked_model
from experiments.evaluation import evaluation
from experiments.evaluation.settings import Settings
from experiments.frozen import parts
from experiments.storage.workdir import Workdir
from experiments.training import processes
from flamingo_jax import model_directory
from flamingo_jax.cache import cache_dir
from flamingo_jax.eval.few_shot import NUM_ZERO_SHOT_TEXTS
from flamingo_jax.eval.metrics import METRICS
from flamingo_jax.eval.task import Task
from flamingo_jax.eval.tasks import catalog

flags.adopt_module_key_flags(asked_model)  # so that --help lists them
_TASKS = flags.DEFINE_list("tasks", None, "Benchmarks by name, or jsonl:PATH for one of your own.")
_SHOTS = flags.DEFINE_list("shots", ["0", "4", "8", "16", "32"], "Numbers of examples.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the benchmarks' files.")
_OUT = flags.DEFINE_string(
    "out", None, "Folder for results and predictions; may be gs://BUCKET/FOLDER."
)
_RETRIEVAL = flags.DEFINE_enum(
    "retrieval", "random", ["random", "rices"], "Examples: at random, or the most similar."
)
_PERMUTATIONS = flags.DEFINE_integer(
    "permutations",
    6,
    "Orders of the examples over which candidates' log-likelihoods are averaged; 1 is quicker.",
    lower_bound=1,
)
_ZERO_SHOT_TEXTS = flags.DEFINE_integer(
    "zero_shot_texts",
    NUM_ZERO_SHOT_TEXTS,
    "Examples without their pictures at 0 shots of open-ended tasks; 0 for a fine-tuned model.",
    lower_bound=0,
)
_NUM_QUERIES = flags.DEFINE_integer("num_queries", None, "Of each task; all if not given.", 1)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Draws of the examples, averaged.", lower_bound=1)
_MAX_SKIPPED_SHARE = flags.DEFINE_float(
    "max_skipped_share",
    0.1,
    "Stop where a larger share of a task's pictures cannot be read, 0 to 1.",
)
flags.mark_flags_as_required(["tasks", "out"])


def main() -> None:
    """Scores every task with every number of shots."""
    with Workdir.given("--out", _OUT.value) as out:
        _evaluate(out)
        first = processes.part()
    if first:
        print(f"results: {out}/results.md")


def _evaluate(out: Workdir) -> None:
    shots, names = _shots(), list(dict.fromkeys(filter(None, _TASKS.value)))
    with cli.user_input():
        settings = Settings(
            _RETRIEVAL.value,
            _PERMUTATIONS.value,
            _SEEDS.value,
            _NUM_QUERIES.value,
            _MAX_SKIPPED_SHARE.value,
            _ZERO_SHOT_TEXTS.value,
        )
    data_dir = None if _DATA_DIR.value is None else cli.local_path("--data_dir", _DATA_DIR.value)
    with cli.user_input():
        for name in names:
            catalog.check(name)
    asked_model.join()
    out.bring()
    if processes.is_first():
        evaluation.check_folder(out)
    directory = asked_model.folder()
    card = model_directory.read_card(directory)
    with cli.user_input():
        tasks = [catalog.read(name, data_dir, card.caption_template) for name in names]
    _check_names(tasks)
    _prepare_scores(tasks)
    evaluation.run(asked_model.load(), directory, tasks, shots, settings, out, sys.argv)


def _shots() -> list[int]:
    """The numbers of shots, each once, in order."""
    found = set()
    for text in filter(None, _SHOTS.value):
        if not text.strip().isdecimal():
            raise cli.UserError(f"--shots: {text!r} is no number of examples; write 0,4,8")
        found.add(int(text))
    if not found:
        raise cli.UserError("--shots is empty: write 0,4,8")
    return sorted(found)


def _check_names(tasks: list[Task]) -> None:
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise cli.UserError(
                f'two tasks are called {name!r}: name one otherwise, {{"task": {{"name": ..}}}}'
            )
    if not names:
        raise cli.UserError("--tasks is empty: name a benchmark, or jsonl:PATH")


def _prepare_scores(tasks: list[Task]) -> None:
    """Fetches and reads what scores need, before a model is asked anything."""
    for metric in (METRICS[task.metric] for task in tasks):
        with processes.one_at_a_time(cache_dir()):
            parts.bring(metric.packages)
        with cli.user_input():
            metric.prepare()


if __name__ == "__main__":
    cli.run(main)
