"""What a model makes of pictures whose names it was not trained on.

Three questions: does the right picture make its name likelier than another picture does (nats a
token); does the right name come first among many; do examples in the prompt help with either.
Pictures of the split `data.heldout.support` are the examples, but for a query's own. Wrong names
are drawn from the held-out names.
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.records import Document
from experiments.evaluation.media import similarity_features
from experiments.reporting.report_data import Heldout, SamplePicture
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.eval import caption_tokenizer, cider, few_shot, ranking, retrieval, task
from flamingo_jax.eval.bootstrap import Interval, bootstrap_mean, paired_bootstrap
from flamingo_jax.eval.prompt_template import PromptTemplate, cut_at_keywords
from flamingo_jax.eval.wilson import wilson_share
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.model import Decoding, Model
from flamingo_jax.prompts import ImagePart, Prompt
from flamingo_jax.videos import is_video


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture with its names, the main one first, as prompts take it."""

    id: str
    image: Any  # compressed bytes, or cached features [P, E], still in their file
    names: tuple[str, ...]
    media_id: str  # the same for all records of one picture
    document: Document


def examples(
    documents: Iterable[Document],
    features: Mapping[str, np.ndarray] | None,
    skipped: Counter[str],
) -> list[Example]:
    """Pairs as examples; pictures are replaced by cached features where there are any.

    What is no picture with a name is left out, and counted in `skipped` by its reason.
    """
    found = []
    for d in documents:
        names = (d.text, *d.metadata.get("references", ()))
        media_ids = d.media_ids
        if len(media_ids) != 1:
            skipped["not_one_medium"] += 1
        elif not d.text.strip():
            skipped["no_text"] += 1
        elif is_video(d.media[0]):
            skipped["video"] += 1
        elif features is not None and media_ids[0] not in features:
            skipped["no_features"] += 1
        else:
            image = d.media[0] if features is None else features[media_ids[0]]
            # Each once: a record of COCO lists its own caption among the references too.
            distinct = dict.fromkeys(name.strip() for name in names if name.strip())
            found.append(Example(d.id, image, tuple(distinct), media_ids[0], d))
    return found


def is_readable(example: Example, preprocessing: ImagePreprocessing, skipped: Counter[str]) -> bool:
    """Whether its picture can be decoded, as that of cached features was; counted where not."""
    if isinstance(example.image, np.ndarray):
        return True
    try:
        decode_image(example.image, preprocessing)
    except BadMedia as error:
        skipped[error.reason] += 1
        return False
    return True


def each_picture_once(found: Iterable[Example]) -> list[Example]:
    """Without further records of the same picture, which RICES would show one after the other."""
    by_picture: dict[str, Example] = {}
    for example in found:
        by_picture.setdefault(example.media_id, example)
    return list(by_picture.values())


def choose(
    found: Sequence[Example],
    count: int,
    seed: int,
    usable: Callable[[Example], bool] = lambda example: True,
) -> list[Example]:
    """`count` examples of different names and pictures, drawn once; all where there are fewer.

    Those that are not `usable` are passed over; only what would be chosen is asked for it.
    """
    chosen: list[Example] = []
    taken: set[tuple[str, str]] = set()
    for example in random.Random(seed).sample(list(found), len(found)):
        if len(chosen) == count:
            break
        keys = {("name", example.names[0]), ("picture", example.media_id)}
        if not keys & taken and usable(example):
            taken |= keys
            chosen.append(example)
    return sorted(chosen, key=lambda e: e.id)


def most_candidates(queries: Sequence[Example], names: Sequence[str]) -> int:
    """How many names, the right one among them, can be drawn for every query."""
    return ranking.most_candidates(
        [q.names[0] for q in queries], names, also_right=[q.names[1:] for q in queries]
    )


def shuffled(count: int, seed: int) -> list[int]:
    """Another one for each of `count`: the next in a random circle, so nobody gets itself.

    By chance, as queries stand in the order of their ids, where neighbours are alike.
    """
    circle = random.Random(seed).sample(range(count), count)
    after = dict(zip(circle, [*circle[1:], *circle[:1]], strict=True))
    return [after[i] for i in range(count)]


@dataclasses.dataclass(frozen=True)
class NameTest:
    """Whose name is it: for each query its right name, first, and wrong ones."""

    queries: Sequence[Example]
    names: Sequence[tuple[str, ...]]

    @property
    def num_candidates(self) -> int:
        return len(self.names[0])

    @classmethod
    def draw(
        cls, queries: Sequence[Example], names: Sequence[str], num_candidates: int, seed: int
    ) -> "NameTest":
        """Wrong names are drawn from `names`, once for all prompts that ask for them."""
        ids, right = [q.id for q in queries], [q.names[0] for q in queries]
        also_right = [q.names[1:] for q in queries]
        drawn = ranking.candidate_sets(
            ids, right, names, num_candidates, seed=seed, also_right=also_right
        )
        return cls(queries, drawn)

    def log_probs(self, model: Model, asked: Sequence[Prompt]) -> np.ndarray:
        """f32[queries, candidates] of the names after each query's prompt."""
        template = PromptTemplate.of_caption(model.caption_template)
        texts = [[template.continuation(name) for name in row] for row in self.names]
        return np.stack(model.likelihoods(asked, texts))

    def num_tokens(self, model: Model) -> np.ndarray:
        """i64[queries, candidates] of the names, each with the mark that ends it."""
        template = PromptTemplate.of_caption(model.caption_template)

        def count(name: str) -> int:
            text = template.continuation(name)
            return len(model.tokenizer.encode_behind(template.query({}), text)) + 1

        return np.array([[count(name) for name in row] for row in self.names])


def losses_and_ranks(model: Model, test: NameTest, seed: int) -> Heldout:
    """Right against shuffled pictures, and the right name's rank, without examples."""
    queries, template = test.queries, PromptTemplate.of_caption(model.caption_template)
    others = [_question(queries[i], template) for i in shuffled(len(queries), seed)]
    answers = [[template.continuation(q.names[0])] for q in queries]
    wrong = np.concatenate(model.likelihoods(others, answers))
    scores = test.log_probs(model, [_question(q, template) for q in queries])
    num_tokens = test.num_tokens(model)
    ranked = ranking.rank(scores)
    # Over the mean number of tokens, so that the means over queries are nats a token of all.
    right_nll, shuffled_nll = (-x / num_tokens[:, 0].mean() for x in (scores[:, 0], wrong))
    return Heldout(
        nll_right=float(right_nll.mean()),
        nll_shuffled=float(shuffled_nll.mean()),
        nll_difference=paired_bootstrap(shuffled_nll, right_nll, seed=seed),
        rank1=wilson_share(ranked.first),
        rank1_per_token=wilson_share(ranking.rank(scores / num_tokens).first),
        mean_reciprocal_rank=float(ranked.reciprocal.mean()),
        num_candidates=test.num_candidates,
    )


def few_shot_rank1(
    model: Model,
    test: NameTest,
    support: Sequence[Example],
    num_shots: int,
    retrieval_kind: str,
    seed: int,
) -> Interval:
    """Share of queries whose right name comes first after `num_shots` examples."""
    asked = _few_shot_prompts(model, test.queries, support, num_shots, retrieval_kind, seed)
    return wilson_share(ranking.rank(test.log_probs(model, asked)).first)


def captions(
    model: Model,
    queries: Sequence[Example],
    support: Sequence[Example],
    num_shots: int,
    retrieval_kind: str,
    max_tokens: int,
    seed: int,
) -> list[str]:
    """What the model writes for each query after `num_shots` examples; 3 beams, as the paper.

    No shots means two captions without their pictures (the paper's zero-shot prompt).
    """
    asked = _few_shot_prompts(model, queries, support, num_shots, retrieval_kind, seed)
    written = model.generate(asked, Decoding("beam", max_tokens=max_tokens))
    template = PromptTemplate.of_caption(model.caption_template)
    return [cut_at_keywords(w.text, template.keywords) for w in written]


def _few_shot_prompts(
    model: Model,
    queries: Sequence[Example],
    support: Sequence[Example],
    num_shots: int,
    retrieval_kind: str,
    seed: int,
) -> list[Prompt]:
    template = PromptTemplate.of_caption(model.caption_template)
    count = few_shot.num_examples(num_shots, closed=False)
    query_ids, support_ids = [q.media_id for q in queries], [s.media_id for s in support]
    if retrieval_kind == "rices":
        rows = retrieval.rices_shots(
            _pooled(model, queries),
            _pooled(model, support),
            count,
            query_ids=query_ids,
            support_ids=support_ids,
        )
    else:
        rows = retrieval.random_shots(query_ids, support_ids, count, seed=seed)
    asked = []
    for query, row in zip(queries, rows, strict=True):
        shots = [_shown(support[i]) for i in row]
        parts = few_shot.task_prompt(template, shots, _shown(query), with_media=num_shots > 0)
        asked.append(Prompt(query.id, parts))
    return asked


def cider_of(written: Sequence[str], queries: Sequence[Example], seed: int) -> Interval:
    """CIDEr-D of captions against every human name of the picture, with a bootstrap interval."""
    tokenize = caption_tokenizer.tokenize
    scores = cider.cider_d(
        [tokenize(text) for text in written],
        [[tokenize(name) for name in q.names] for q in queries],
    )
    return bootstrap_mean(scores, seed=seed)


def sample(query: Example, written: str, model: Model) -> SamplePicture:
    """The picture as the model saw it, with the text written for it."""
    picture = decode_image(query.document.media[0], model.config.vision.preprocessing)
    return SamplePicture(picture, written, query.names)


def _pooled(model: Model, group: Sequence[Example]) -> np.ndarray:
    """What RICES compares, [pictures, E]: frozen features, as the resampler gets them."""
    pooled = np.concatenate([retrieval.pool(e.image[None]) for e in group])
    return similarity_features(model, pooled)


def _question(example: Example, template: PromptTemplate) -> Prompt:
    return Prompt("", few_shot.task_prompt(template, [], _shown(example)))


def _shown(example: Example) -> task.Example:
    """As prompts take it: bytes as they are, features in float32."""
    image = example.image
    media = ImagePart(np.asarray(image, np.float32) if isinstance(image, np.ndarray) else image)
    return task.Example(example.id, media, example.names[0], example.names)
