"""The scores of tasks, by name, each from its own file; what makes them one table.

A metric gives a number for each query and combines those of all queries, by their mean unless it
says otherwise. Scores are printed as papers print them, 100 times what the functions return.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flamingo_jax.eval import (
    caption_tokenizer,
    cider,
    exact_match,
    ivqa_accuracy,
    mean_wap,
    ndcg,
    nextqa_scorer,
    okvqa_stems,
    roc_auc,
    top_k,
    vqa_accuracy,
)
from flamingo_jax.eval.bootstrap import Interval, bootstrap_mean, bootstrap_statistic
from flamingo_jax.eval.task import Example
from flamingo_jax.eval.wilson import wilson_share

UNIT = 100.0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model wrote, or how likely it found each candidate."""

    text: str = ""
    candidates: tuple[str, ...] = ()
    log_probs: np.ndarray | None = None  # float[candidates]


Each = Callable[[Sequence[Example], Sequence[Prediction]], np.ndarray]  # to f64[queries]
Combine = Callable[[np.ndarray, Sequence[Example]], float]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One way to score predictions."""

    version: str
    closed: bool  # by candidates' likelihoods
    each: Each
    combine: Combine | None = None  # None: the mean
    is_share: bool = False  # each query is a hit or a miss
    num_candidates: int | None = None  # that it wants; None: any number
    each_is: str | None = "score"  # what `each` gives of a query; None: of something else
    packages: tuple[str, ...] = ()  # of `data_pipelines.packages`, that it reads from the cache
    prepare: Callable[[], object] = lambda: None  # reads them; ValueError where it cannot


def summarize(
    metric: Metric,
    examples: Sequence[Example],
    draws: Sequence[np.ndarray],  # of each seed f64[queries], what `metric.each` gave
) -> tuple[Interval, list[float], str]:
    """The score with its 95% interval over queries, each seed's score, the interval's kind.

    Of several seeds the mean score is taken, resampling the same queries in each. ValueError where
    the queries do not suffice for the metric.
    """
    mean = np.mean(draws, axis=0)
    if metric.combine is None:
        is_share = metric.is_share and len(draws) == 1
        interval = wilson_share(mean) if is_share else bootstrap_mean(mean)
        of_seeds, kind = [float(d.mean()) for d in draws], "Wilson" if is_share else "bootstrap"
        return _in_units(interval), [UNIT * score for score in of_seeds], kind
    combine = metric.combine

    def statistic(rows: np.ndarray) -> float:
        chosen = [examples[row] for row in rows]
        return float(np.mean([combine(draw[rows], chosen) for draw in draws]))

    of_seeds = [UNIT * combine(draw, examples) for draw in draws]
    return _in_units(bootstrap_statistic(statistic, len(examples))), of_seeds, "bootstrap"


def _in_units(interval: Interval) -> Interval:
    low, high = UNIT * interval.low, UNIT * interval.high
    return Interval(UNIT * interval.mean, low, high, interval.num_queries)


def by_group(values: np.ndarray, examples: Sequence[Example]) -> dict[str, float]:
    """The mean of each group, such as a question's type, in order of their names."""
    groups = sorted({e.group for e in examples})
    return {
        group: UNIT
        * float(np.mean([v for v, e in zip(values, examples, strict=True) if e.group == group]))
        for group in groups
        if group
    }


def _per_query(score: Callable[[Example, Prediction], float]) -> Each:
    def each(examples: Sequence[Example], predictions: Sequence[Prediction]) -> np.ndarray:
        return np.array([score(*both) for both in zip(examples, predictions, strict=True)])

    return each


def _cider(examples: Sequence[Example], predictions: Sequence[Prediction]) -> np.ndarray:
    tokenize = caption_tokenizer.tokenize
    return cider.cider_d(
        [tokenize(p.text) for p in predictions],
        [[tokenize(caption) for caption in e.references] for e in examples],
    )


def _top(k: int) -> Each:
    def score(example: Example, prediction: Prediction) -> float:
        right = prediction.candidates.index(example.answer)
        return top_k.in_top_k(_log_probs(prediction), right, k)

    return _per_query(score)


def _log_odds(example: Example, prediction: Prediction) -> float:
    positive, negative = _log_probs(prediction)
    return float(positive - negative)


def _log_probs(prediction: Prediction) -> np.ndarray:
    assert prediction.log_probs is not None
    return prediction.log_probs


def _roc_auc(values: np.ndarray, examples: Sequence[Example]) -> float:
    return roc_auc.roc_auc(values, np.array([e.relevance[0] > 0 for e in examples]))


def _group_mean(values: np.ndarray, examples: Sequence[Example]) -> float:
    return float(np.mean(list(by_group(values, examples).values()))) / UNIT


def _wups(examples: Sequence[Example], predictions: Sequence[Prediction]) -> np.ndarray:
    """By what kind of answer a question wants, which is its example's group."""
    score = nextqa_scorer.load().score
    pairs = zip(examples, predictions, strict=True)
    return np.array([score(p.text, e.references, e.group) for e, p in pairs])


def _mean_wap(examples: Sequence[Example], predictions: Sequence[Prediction]) -> np.ndarray:
    """Of each action, not of each query."""
    clips = [
        mean_wap.Clip(f["video"], f["verb"], f["noun"], int(f["annotation"]))
        for f in (example.fields for example in examples)
    ]
    actions = {e.answer: (c.verb, c.noun) for e, c in zip(examples, clips, strict=True)}
    asked = [(i, name) for i, name in enumerate(predictions[0].candidates) if name in actions]
    scores = np.stack([_log_probs(prediction) for prediction in predictions])
    found = mean_wap.mean_wap(
        scores[:, [i for i, _ in asked]], clips, [actions[name] for _, name in asked]
    )
    if not found.size:
        raise ValueError("no clip shows its action (annotation 1): mWAP wants one")
    return found


_VQA = _per_query(lambda e, p: vqa_accuracy.vqa_accuracy(p.text, e.references))
METRICS = {
    "cider": Metric("CIDEr-D 1, own tokenizer", False, _cider),
    "vqa_accuracy": Metric(vqa_accuracy.VERSION, False, _VQA),
    "vqa_accuracy_of_stems": Metric(  # of what a task's `rewrite` makes of them
        f"{vqa_accuracy.VERSION}, {okvqa_stems.VERSION}", False, _VQA
    ),
    "exact_match": Metric(
        exact_match.VERSION,
        False,
        _per_query(lambda e, p: exact_match.exact_match(p.text, e.references)),
        is_share=True,
    ),
    "first_word": Metric(
        f"{exact_match.VERSION}, first word",
        False,
        _per_query(lambda e, p: exact_match.exact_match(p.text, e.references, first_word=True)),
        is_share=True,
    ),
    "ivqa_accuracy": Metric(
        ivqa_accuracy.VERSION,
        False,
        _per_query(lambda e, p: ivqa_accuracy.ivqa_accuracy(p.text, e.references)),
    ),
    "wups": Metric(
        nextqa_scorer.VERSION,
        False,
        _wups,
        packages=nextqa_scorer.PACKAGES,
        prepare=nextqa_scorer.load,
    ),
    "top1": Metric(top_k.VERSION, True, _top(1), is_share=True),
    "top1_top5": Metric(
        f"{top_k.VERSION}, mean of top-1 and top-5",
        True,
        lambda e, p: (_top(1)(e, p) + _top(5)(e, p)) / 2,
    ),
    "top1_of_types": Metric(f"{top_k.VERSION}, mean over types", True, _top(1), _group_mean),
    "ndcg": Metric(
        ndcg.VERSION,
        True,
        _per_query(lambda e, p: ndcg.ndcg(_log_probs(p), np.array(e.relevance))),
    ),
    "roc_auc": Metric(
        roc_auc.VERSION,
        True,
        _per_query(_log_odds),
        _roc_auc,
        num_candidates=2,
        each_is="log_odds",
    ),
    "mean_wap": Metric(mean_wap.VERSION, True, _mean_wap, each_is=None),
}
