"""Tasks and numbers of shots, one after the other, and what becomes of them.

What cannot be read is left out before anything is asked, of queries and of support examples, so
every number of shots is asked of the same queries with the same examples at hand.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from experiments.cli import UserError
from experiments.evaluation import asking, figure, frames, results, row, settings
from experiments.evaluation.media import Media
from experiments.evaluation.prediction_file import PredictionFile
from experiments.evaluation.results import Result
from experiments.evaluation.settings import Settings
from experiments.storage.workdir import Workdir
from experiments.training import processes, progress
from flamingo_jax import __version__
from flamingo_jax.eval import few_shot, metrics
from flamingo_jax.eval.seeding import first_queries
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.model import Model
from flamingo_jax.prompts import Part

PREDICTIONS = "predictions"


def run(
    model: Model,
    model_directory: pathlib.Path,
    tasks: Sequence[Task],
    shots: Sequence[int],
    asked_for: Settings,
    out: Workdir,
    command: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Evaluates, writes everything into `out`, and gives the rows of results.json.

    All processes must call it; process 0 alone looks at that folder, and has the rows. UserError
    where it holds what was made otherwise, or lies in a bucket that cannot be written.
    """
    folder, writes = out.folder / PREDICTIONS, processes.is_first()
    identity = settings.model_identity(model_directory)
    if writes:
        check_folder(out)
        folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        _check_support(task, shots, asked_for)
        if writes:
            settings.check(folder, identity, asked_for, task, shots)
    out.begin()
    about = {
        "model": {"directory": str(model_directory), **identity},
        "settings": {
            "retrieval": asked_for.retrieval,
            "permutations": asked_for.permutations,
            "max_skipped_share": asked_for.max_skipped_share,
            "zero_shot_texts": asked_for.zero_shot_texts,
        },
        "versions": {"flamingo_jax": __version__, "jax": jax.__version__},
        "command": list(command),
    }
    media, found, rows = Media(model), [], []
    for task in tasks:
        one = _Evaluation(model, identity, task, shots, asked_for, media, out)
        for result in one.results():
            found.append(result)
            if writes:
                rows = results.write(out.folder, about, found)
                out.keep()
    if not writes:
        return []
    path = model_directory.resolve()
    name = (path.parent if path.name == "model" else path).name
    figure.draw(rows, name, out.folder / "results.png")
    return rows


class _Evaluation:
    """One task's queries and support examples that can be read."""

    def __init__(
        self,
        model: Model,
        identity: dict[str, str],
        task: Task,
        shots: Sequence[int],
        asked_for: Settings,
        media: Media,
        out: Workdir,
    ):
        self._model, self._task, self._shots, self._settings = model, task, shots, asked_for
        self._media, self._out, self._folder = media, out, out.folder / PREDICTIONS
        self._closed = metrics.METRICS[task.metric].closed
        drawing = _drawing(task, shots, asked_for)
        queries = first_queries(task.queries, asked_for.num_queries)
        if len({query.id for query in queries}) < len(queries):
            raise UserError(f"{task.name}: two queries have one id, so the files are damaged")
        pools: list[list[Example]] = [[]]  # not looked at where none is shown
        if drawing:
            pools = [few_shot.support_pool(task, seed) for seed in range(asked_for.seeds)]
        group = [*queries, *(example for pool in pools for example in pool)]
        different = {example.path: example.media for example in group}
        pooled = asked_for.retrieval == "rices" and any(drawing)
        with progress.bar(len(different), f"{task.name}: reading media", "media") as bar:
            media.look(different.values(), pooled=pooled, tick=bar.update)
        self._queries, self._skipped_queries = self._usable(queries, "queries")
        usable = [self._usable(pool, "support examples") for pool in pools]
        self._pools = [pool for pool, _ in usable]
        self._skipped_support = usable[0][1]
        left_out = {  # since a pool that grows is drawn from differently
            f"unreadable_support_{seed}": ", ".join(
                sorted({e.id for e in pool} - {e.id for e in good})
            )
            for seed, (pool, good) in enumerate(zip(pools, self._pools, strict=True))
            if drawing
        }
        if processes.is_first():
            settings.check(self._folder, identity, asked_for, task, shots, left_out)

    def results(self) -> Iterator[Result]:
        """A result for each number of shots, as it is there."""
        for num_shots in self._shots:
            yield self._result(num_shots)

    def _result(self, num_shots: int) -> Result:
        task, settings = self._task, self._settings
        seeds = range(settings.seeds if _drawing(task, [num_shots], settings) else 1)
        about = {
            "task": task.name,
            "shots": num_shots,
            "is_own": task.is_own,
            "metric": task.metric,
            "scorer": metrics.METRICS[task.metric].version,
            "split": task.split,
            "prompt_template": task.template.text,
            "decoding": self._decoding(),
            "zero_shot_texts": None if num_shots else settings.zero_shot_texts,
            "retrieval": settings.retrieval if num_shots else "random",
            "permutations": settings.permutations if self._closed and num_shots else 1,
            "seeds": tuple(seeds),
            "num_queries": len(self._queries),
            "num_support": len(self._pools[0]),
            "skipped_queries": self._skipped_queries,
            "skipped_support": self._skipped_support,
            "example_prompt": "",
        }
        try:
            asked = [self._ask(num_shots, seed) for seed in seeds]
        except asking.RowError as error:
            _say(f"{task.name}, {num_shots} shots: {error}")
            return Result(**about, note=str(error))
        about["permutations"] = len(asked[0][0].orders)  # of one or two examples there are fewer
        file = PredictionFile(self._folder / f"{task.name}_{num_shots}.jsonl")
        total = len(self._queries) * len(seeds)
        with progress.bar(total, f"{task.name}, {num_shots} shots", "queries") as bar:

            def written(number: int) -> None:
                self._out.keep()
                bar.update(number)

            for seed in seeds:
                row.predict(self._model, task, asked[seed], seed, self._media, file, written)
        about["example_prompt"] = self._as_text(asked[0][0].prompts[0])
        try:
            score = row.score(task, self._queries, seeds, file)
        except ValueError as error:  # as ROC AUC without a positive query
            _say(f"{task.name}, {num_shots} shots: {error}")
            return Result(**about, note=str(error))
        return Result(
            **about,
            score=score.interval.mean,
            low=score.interval.low,
            high=score.interval.high,
            interval=f"95%, {score.interval_kind}",
            score_of_seeds=score.of_seeds,
            groups=score.groups,
        )

    def _ask(self, num_shots: int, seed: int) -> list[asking.Asked]:
        return asking.ask(
            self._task,
            num_shots,
            seed,
            queries=self._queries,
            pool=self._pools[seed],
            media=self._media,
            settings=self._settings,
            model=self._model,
        )

    def _usable(
        self, examples: Sequence[Example], what: str
    ) -> tuple[list[Example], dict[str, int]]:
        share = self._settings.max_skipped_share
        return frames.usable(self._task.name, what, examples, self._media.reason, share)

    def _as_text(self, parts: Sequence[Part]) -> str:
        return "<BOS>" * len(self._model.tokenizer.prefix) + few_shot.as_text(parts)

    def _decoding(self) -> str:
        if self._closed:
            return "log-likelihood of candidates and their end of chunk, not normalised by length"
        return f"beam search, {row.NUM_BEAMS} beams, {self._task.max_tokens} tokens at most"


def _say(text: str) -> None:
    """Once, of several processes."""
    if processes.is_first():
        print(text, file=sys.stderr)


def check_folder(out: Workdir) -> None:
    """UserError where `out` holds other things than an evaluation's."""
    folder = out.folder
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / PREDICTIONS).is_dir()
    ):
        raise UserError(f"{out} holds other files: give another --out")


def _check_support(task: Task, shots: Sequence[int], asked_for: Settings) -> None:
    """UserError where examples are asked for and there are none at all."""
    drawing = _drawing(task, shots, asked_for)
    if drawing and not task.support:
        texts = asked_for.zero_shot_texts
        zero, mend = "", 'mark lines with "split": "support"'
        if drawing[0] == 0:
            zero = f" (0 shots are {texts} examples without their pictures)"
            mend += ", or ask a model that was trained on the task with --zero_shot_texts=0"
        raise UserError(
            f"{task.name}: no support examples, and {drawing[0]} shots want some{zero}: {mend}"
        )


def _drawing(task: Task, shots: Sequence[int], asked_for: Settings) -> list[int]:
    """Those numbers of shots whose prompts hold examples."""
    closed, texts = metrics.METRICS[task.metric].closed, asked_for.zero_shot_texts
    possible = [n for n in shots if task.max_shots is None or n <= task.max_shots]
    return [n for n in possible if few_shot.num_examples(n, closed=closed, zero_shot_texts=texts)]
