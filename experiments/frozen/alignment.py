"""The demo's first stage: a linear map of frozen features, trained contrastively, then frozen too.

Paper: section 2.1. Flamingo's encoder has learnt from pictures and their texts before Flamingo sees
it. EfficientNet has learnt classes alone, so here a linear map of its features learns from the
training pairs what words they go with, by the paper's contrastive loss, in seconds: on pooled
features, which are cached, as the map of a mean is the mean of the maps. The text tower is a linear
map of the mean of the frozen language model's word embeddings. A text is a picture's name or, for
half the draws, another name or keyword of it.

The paper throws the text tower away. Here it is linear too, so it is folded into the map: a feature
ends as what, multiplied with a word's embedding, scores that word. Thus features lie in the space
of the language model's embeddings, and copied into its residual stream they name what is seen.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines import progress_bar
from data_pipelines.records import Document
from data_pipelines.whole_files import open_whole
from experiments.frozen.feature_cache import FeatureCache
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train.contrastive import contrastive_loss


@dataclasses.dataclass(frozen=True)
class AlignmentConfig:
    """How the linear map is trained. Tuned on a fifth of the training concepts, held out for it."""

    steps: int = 300
    batch_size: int = 512
    width: int = 384  # of the space in which pictures and texts meet
    learning_rate: float = 1e-3  # down to 0, linearly, as the paper's
    weight_decay: float = 0.1
    dropout: float = 0.5  # of pooled features
    inverse_temperature: float = 10.0  # where the learned one begins
    other_texts: float = 0.5  # share of draws that take another name or keyword


@dataclasses.dataclass(frozen=True)
class Texts:
    """Every distinct text of the training pairs, and which of them belong to which picture."""

    vectors: np.ndarray  # f32[texts, D], standardised mean word embeddings
    std: np.ndarray  # f32[D], what they were divided by
    names: list[int]  # a picture's name
    others: list[list[int]]  # its other names and keywords

    @classmethod
    def read(
        cls, documents: Sequence[Document], tokenizer: Tokenizer, embedding: np.ndarray
    ) -> "Texts":
        ids: dict[str, int] = {}

        def number(text: str) -> int:
            return ids.setdefault(text, len(ids))

        names = [number(d.text) for d in documents]
        others = [
            [number(t) for t in (*d.metadata.get("references", ()), *d.metadata.get("tags", ()))]
            for d in documents
        ]
        vectors = np.stack([embedding[_ids(tokenizer, text)].mean(0) for text in ids])
        std = vectors.std(0) + 1e-6
        return cls((vectors - vectors.mean(0)) / std, std, names, others)

    def draw(self, pictures: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """One text for each picture, i32[N]."""
        chosen = [self.names[i] for i in pictures]
        for place in np.flatnonzero(rng.random(len(pictures)) < share):
            if others := self.others[pictures[place]]:
                chosen[place] = others[rng.integers(len(others))]
        return np.asarray(chosen, np.int32)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """As in the middle of a sentence, where most words have a token of their own."""
    return tokenizer.encode_behind("a", f" {text}")


def open_or_fit(
    features: FeatureCache,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    embedding: np.ndarray,  # [V, D], the language model's
    config: AlignmentConfig,
    seed: int,
) -> dict[str, np.ndarray]:
    """`fit`, kept in a file beside the features, so that a run that resumes has the same map."""
    words = [
        [d.id, d.text, d.metadata.get("references"), d.metadata.get("tags")] for d in documents
    ]
    texts = [_ids(tokenizer, d.text) for d in documents]
    told = [dataclasses.asdict(config), seed, words, texts]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(embedding).tobytes())
    key = digest.hexdigest()[:8]
    path = features.path.with_name(f"{features.path.stem}-aligned-{key}.npz")
    if not path.is_file():
        found = fit(features, documents, tokenizer, embedding, config, seed)
        with open_whole(path) as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return dict(file)


def fit(
    features: Mapping[str, np.ndarray],
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    embedding: np.ndarray,
    config: AlignmentConfig,
    seed: int,
) -> dict[str, np.ndarray]:
    """`kernel` f32[E, D] and `bias` f32[D] of the map, for features as they are cached.

    Mapped features are centred, and pooled ones have a standard deviation of 1 over all channels.
    """
    documents = [d for d in documents if d.media_ids[0] in features]  # others cannot be read
    texts = Texts.read(documents, tokenizer, np.asarray(embedding, np.float32))
    mean, std = features.channel_statistics(d.media_ids[0] for d in documents)
    pooled = np.stack([np.asarray(features[d.media_ids[0]], np.float32).mean(0) for d in documents])
    pooled = (pooled - mean) / std
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    schedule = optax.schedules.linear_schedule(config.learning_rate, 0.0, config.steps)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)

    def draw(inputs: int) -> np.ndarray:
        return (rng.standard_normal((inputs, config.width)) / np.sqrt(inputs)).astype(np.float32)

    params = {
        "picture": draw(pooled.shape[1]),
        "text": draw(texts.vectors.shape[1]),
        "log_scale": np.log(np.float32(config.inverse_temperature)),
    }
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, pictures, texts, text_ids, key):
        kept = jax.random.bernoulli(key, 1 - config.dropout, pictures.shape)
        pictures = jnp.where(kept, pictures / (1 - config.dropout), 0.0)

        def loss(params):
            return contrastive_loss(
                pictures @ params["picture"],
                texts @ params["text"],
                text_ids,
                jnp.exp(params["log_scale"]),
            )

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    batch_size = min(config.batch_size, len(documents))
    with progress_bar.bar(config.steps, "aligning features with words", "steps") as bar:
        for number in range(config.steps):
            rows = rng.choice(len(documents), batch_size, replace=False)
            ids = texts.draw(rows, config.other_texts, rng)
            step_key = jax.random.fold_in(key, number)
            params, state, value = step(
                params, state, pooled[rows], texts.vectors[ids], ids, step_key
            )
            if number % 50 == 49:
                bar.set_postfix_str(f"loss {float(value):.2f}", False)
            bar.update()
    kernel = np.asarray(params["picture"]) @ np.asarray(params["text"]).T / texts.std
    kernel /= std[:, None] * (pooled @ kernel).std()
    return {"kernel": kernel, "bias": -mean @ kernel}
