"""The end of a training run: evaluate what was held out, and hand it to the report."""

import collections
import dataclasses
import pathlib
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from data_pipelines.whole_files import read_json, write_json
from experiments.reporting import heldout
from experiments.reporting.report import write_report
from experiments.reporting.report_data import DataCount, FewShotScore, Report
from experiments.storage.workdir import Workdir
from experiments.training import datasets, progress
from flamingo_jax.eval.few_shot import NUM_ZERO_SHOT_TEXTS
from flamingo_jax.model import Model

NUM_SAMPLES = 12
CLOCK_FILE = "clock.json"


@dataclasses.dataclass
class Clock:
    """Wall time of a run, all its restarts added up."""

    path: pathlib.Path
    before_s: float
    began: float

    @classmethod
    def start(cls, workdir: pathlib.Path, began: float) -> "Clock":
        """Goes on from the time that was kept, at `began` of `time.monotonic`.

        ValueError where its file is damaged.
        """
        path = workdir / CLOCK_FILE
        try:
            before_s = float(read_json(path)["wall_s"]) if path.is_file() else 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: delete it, and time counts from now") from error
        return cls(path, before_s, began)

    def wall_s(self) -> float:
        return self.before_s + time.monotonic() - self.began

    def save(self) -> None:
        """Keeps the time so far for the next restart, also one after a kill while this writes."""
        write_json(self.path, {"wall_s": self.wall_s()})


def make(config, card, params, mesh, tokenizer, features, place, clock: Clock) -> Report:
    """Evaluates the finished model on the held-out pairs, where the recipe names some.

    On the run's mesh, where the parameters are; all processes must call it. `place` is the place in
    the data at the end, with its counts. Where nothing is evaluated `params` are not looked at.
    """
    counts = {
        name: DataCount(at["examples"], sum(at["skipped"].values()), at["skipped"])
        for name, at in place.items()
    }
    results = {}
    if config.report.num_queries:
        model = Model(
            card.config,
            params,
            tokenizer,
            caption_template=card.caption_template,
            compute_dtype=card.dtypes.compute,
            mesh=mesh if mesh.size > 1 else None,
        )
        results = evaluate(config, model, features)
    return Report(
        variant=config.variant,
        wall_s=clock.wall_s(),
        peak_rss_gib=peak_rss_gib(),
        data=counts,
        **results,
    )


def evaluate(config: Any, model: Model, features) -> dict[str, Any]:
    """Held-out losses and ranks, few-shot scores, sample pictures, and what was left out."""
    settings, where = config.report, config.data.heldout
    skipped: collections.Counter[str] = collections.Counter()

    def read(split: str, count: int) -> list[heldout.Example]:
        documents, bad = datasets.draw_documents(config, where.path, split, count)
        skipped.update(bad)
        return heldout.examples(documents, features, skipped)

    def usable(example: heldout.Example) -> bool:
        return heldout.is_readable(example, model.config.vision.preprocessing, skipped)

    all_heldout = read(where.split, 0)
    names = [example.names[0] for example in all_heldout]
    queries = heldout.choose(all_heldout, settings.num_queries, config.seed, usable)
    num_candidates = min(settings.num_candidates, heldout.most_candidates(queries, names))
    if len(queries) < 2 or num_candidates < 2:
        note = f"No held-out scores: {len(queries)} usable pictures of different names, want 2."
        return {"heldout_skipped": dict(skipped), "notes": [note]}
    support = heldout.each_picture_once(read(where.support, settings.num_support))
    support = list(filter(usable, support))
    notes = []
    if num_candidates < settings.num_candidates:
        notes.append(f"Ranked among {num_candidates} names: there are no more different ones.")
    shots_asked = _possible_shots(settings.shots, queries, support, notes)
    kinds = ("random", "rices") if features is not None else ("random",)
    rounds = [(shots, kind) for shots in shots_asked for kind in (kinds if shots else kinds[:1])]
    test = heldout.NameTest.draw(queries, names, num_candidates, config.seed)
    asked = heldout.choose(queries, settings.num_captions, config.seed + 1)
    few_shot, samples = [], []
    with progress.bar(1 + len(rounds), "evaluating", "rounds") as bar:
        scores = heldout.losses_and_ranks(model, test, config.seed)
        bar.update()
        for shots, kind in rounds:
            shown = support, shots, kind
            written = heldout.captions(model, asked, *shown, settings.max_tokens, config.seed)
            cider = heldout.cider_of(written, asked, config.seed)
            rank1 = None
            if shots and kind == kinds[-1]:  # the paper ranks candidates with retrieved examples
                rank1 = heldout.few_shot_rank1(model, test, *shown, config.seed)
            few_shot.append(FewShotScore(shots, kind, cider, rank1))
            if not shots:
                every = max(1, len(asked) // NUM_SAMPLES)
                chosen = list(zip(asked, written, strict=True))[::every]
                samples = [heldout.sample(q, w, model) for q, w in chosen[:NUM_SAMPLES]]
            bar.update()
    return {
        "heldout": scores,
        "few_shot": few_shot,
        "samples": samples,
        "heldout_skipped": dict(skipped),
        "notes": notes,
    }


def _possible_shots(
    asked: Sequence[int],
    queries: Sequence[heldout.Example],
    support: Sequence[heldout.Example],
    notes: list[str],
) -> list[int]:
    """Those numbers of shots that the support set has pictures for; a note on each other one."""
    own = {q.media_id for q in queries} & {s.media_id for s in support}
    room = len(support) - bool(own)
    possible = []
    for shots in asked:
        if (shots or NUM_ZERO_SHOT_TEXTS) <= room:
            possible.append(shots)
        else:
            notes.append(f"Not captioned with {shots} shots: only {room} usable examples.")
    return possible


def write(workdir: Workdir, report: Report, writers, step: int) -> None:
    """The report's files, its pictures in TensorBoard at the run's last `step`, and where to look,
    on standard output."""
    write_report(workdir.folder, report)
    for writer in writers:
        if hasattr(writer, "write_samples") and report.samples:
            writer.write_samples(step, report.samples)
        writer.close()
    print(f"model: {workdir}/model\nreport: {workdir}/report.md", file=sys.stdout)


def peak_rss_gib() -> float:
    """The largest resident memory of this process so far."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30
