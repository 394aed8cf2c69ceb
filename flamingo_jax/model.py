"""A finished model with its tokenizer: prompts in, text or likelihoods out.

`flamingo_jax.load(DIR)` gives one. Everything here is convenience over `decode/`: prompts become
batches of like length, each shape is compiled once. On a mesh (`decode/serving.py`) all devices
answer together, and of several processes each has all answers.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flamingo_jax.batch import Batch
from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import Execution
from flamingo_jax.decode import calls, prompt_batch, score, serving
from flamingo_jax.decode import candidates as candidates_lib
from flamingo_jax.decode.cache import media_bytes, token_bytes
from flamingo_jax.decode.decoding import Decoding, write
from flamingo_jax.decode.results import Candidate, Scored, Written
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.prompts import Prompt, PromptError, as_prompt, each_prompt
from flamingo_jax.tokenizer import Tokenizer

Tree = Any
Tick = Callable[[int], object]


def _no_tick(number: int) -> None:
    """For callers that show no progress."""


class Model:
    """A Flamingo with parameters, tokenizer and prompt conventions."""

    def __init__(
        self,
        config: FlamingoConfig,
        params: Tree,
        tokenizer: Tokenizer,
        *,
        caption_template: str = "Output: {}",
        compute_dtype: str = "float32",
        video_sampling: prompt_batch.VideoSampling = prompt_batch.VideoSampling(),  # noqa: B008
        mesh: Mesh | None = None,  # of `core.partition`; None: one device
    ):
        tokenizer.check_rows(config.language_model.vocab_size, config.num_new_tokens)
        self.config, self.tokenizer = config, tokenizer
        self.mesh, self.shards = mesh, 1 if mesh is None else partition.batch_shards(mesh)
        self.params = serving.place(params, config, mesh)
        self.video_sampling = video_sampling
        self.caption_template = caption_template
        self.compute_dtype = compute_dtype
        self.graph, _, _ = params_lib.abstract(
            lambda rngs: Flamingo(config, Execution(), dtype=compute_dtype, rngs=rngs)
        )

    @property
    def feature_bytes(self) -> int:
        """Of a frame's features, as the encoder gives them."""
        vision = self.config.vision
        return vision.num_features * vision.width * jnp.dtype(self.compute_dtype).itemsize

    def generate(
        self,
        prompts: Iterable[Any],
        decoding: Decoding = Decoding(),  # noqa: B008
        *,
        tick: Tick = _no_tick,
    ) -> list[Written]:
        """Continues each prompt until `<EOC>`, end of text, or `max_tokens`.

        A prompt is a list of parts (`{"image": path, PIL image or array}`, `{"video": path, bytes
        or u8[F, H, W, 3]}`, `{"text": ..}`, `{"end_of_chunk": True}`) or a `prompts.Prompt`; the
        encoder's features may stand for a picture, float[P, E], and a video, float[n, P, E]. What
        is drawn for it depends on the seed and on its number among the prompts. `tick` is called
        with the number of prompts that were done just now.
        """
        written: list[Written] = []
        for window in calls.windows(each_prompt(prompts)):
            encoded = [self._encode(prompt) for prompt in window]
            written += self._write(encoded, decoding, len(written), tick)
        return written

    def _write(
        self, encoded: Sequence[prompt_batch.Encoded], decoding: Decoding, first: int, tick: Tick
    ) -> list[Written]:
        """Continuations of prompts number `first` and those after it."""
        seed, run = np.uint32(decoding.seed), self._continue(decoding.program())
        longest = prompt_batch.padded_length(max(len(e.tokens) for e in encoded))
        self._check_length(longest + decoding.max_tokens)
        beams = decoding.num_beams if decoding.method == "beam" else 1

        def max_rows(shape: calls.Shape) -> int:
            each = shape[0] * media_bytes(self.config, self.compute_dtype)
            tokens = longest + beams * decoding.max_tokens
            each += tokens * token_bytes(self.config, self.compute_dtype)
            room = calls.MAX_CACHE_BYTES * serving.cache_cut(self.config, self.mesh)
            return calls.rows_within(room, each, self.shards)

        def one_call(batch: Batch, rows: Sequence[int]) -> Iterator[Written]:
            numbers = np.array(self._filled([first + i for i in rows]), np.uint32)
            out = jax.device_get(run(self.params, batch, seed, numbers))
            for ids, length, log_prob in zip(*out, strict=True):
                tokens = tuple(ids[:length].tolist())
                yield Written(self.tokenizer.decode(tokens), tokens, float(log_prob))

        # One length for all of them: padding is cheaper than compiling again.
        return self._by_call(
            encoded, [e.media_shape for e in encoded], max_rows, one_call, length=longest, tick=tick
        )

    def score(self, prompts: Iterable[Any], *, tick: Tick = _no_tick) -> list[Scored]:
        """Log-likelihood of every text token of each prompt, and of its candidates after it.

        `tick` is called with the number of prompts that were read just now, those with candidates
        once more for them.
        """
        return [
            scored
            for window in calls.windows(each_prompt(prompts))
            for scored in self._score_window(window, tick)
        ]

    def _score_window(self, prompts: Sequence[Any], tick: Tick) -> list[Scored]:
        prompts = [as_prompt(prompt) for prompt in prompts]
        encoded = [self._encode(prompt) for prompt in prompts]
        results = []
        for one, log_probs, candidates in zip(
            encoded,
            self._token_log_probs(encoded, tick),
            self._candidates(prompts, encoded, tick),
            strict=True,
        ):
            text = [i for i, is_text in enumerate(one.is_text) if is_text]
            tokens = tuple(self.tokenizer.token_text(one.tokens[i]) for i in text)
            values = [float(log_probs[i]) for i in text]
            results.append(Scored(tokens, (None, *values[1:]) if values else (), candidates))
        return results

    def likelihoods(
        self, prompts: Iterable[Any], candidates: Sequence[Sequence[str]], *, closed: bool = True
    ) -> list[np.ndarray]:
        """f32[candidates] log-likelihood of each prompt's candidates after it.

        With `closed`, `<EOC>` must follow the candidate, so that a prefix of another is no winner.
        ValueError unless each prompt has its candidates.
        """
        found: list[np.ndarray] = []
        if any(isinstance(texts, str) for texts in candidates):
            raise ValueError("candidates: want a list of texts for each prompt, not one text")
        for window in calls.windows(each_prompt(prompts)):
            encoded = [self._encode(prompt) for prompt in window]
            texts = candidates[len(found) : len(found) + len(encoded)]
            if len(texts) < len(encoded):
                raise ValueError(f"{len(candidates)} lists of candidates for more prompts")
            found += self._likelihoods(encoded, texts, closed=closed)
        if len(found) < len(candidates):
            raise ValueError(f"{len(candidates)} lists of candidates for {len(found)} prompts")
        return found

    def _likelihoods(
        self,
        encoded: Sequence[prompt_batch.Encoded],
        candidates: Sequence[Sequence[str]],
        *,
        closed: bool,
        tick: Tick = _no_tick,
    ) -> list[np.ndarray]:
        end = [self.tokenizer.end_of_chunk_id] if closed else []
        encode = functools.cache(self.tokenizer.encode_behind)  # prompts often share candidates
        answers = [
            [[*encode(e.ending, text), *end] for text in texts]
            for e, texts in zip(encoded, candidates, strict=True)
        ]
        lengths = [prompt_batch.padded_length(len(e.tokens)) for e in encoded]
        room = candidates_lib.room(self.config.language_model, max(lengths, default=0))
        num_places = candidates_lib.num_places(answers, room)
        packed = [candidates_lib.pack(a, num_places) for a in answers]
        shapes = [
            (*e.media_shape, length, len(p.first), len(p.tokens))
            for e, length, p in zip(encoded, lengths, packed, strict=True)
        ]

        def one_call(batch: Batch, rows: Sequence[int]) -> np.ndarray:
            these = jax.tree.map(lambda *x: np.stack(x), *self._filled([packed[i] for i in rows]))
            return np.asarray(self._score_candidates(self.params, batch, these))

        max_rows = calls.rows_within(calls.MAX_SCORED_TOKENS, num_places, self.shards)
        return self._by_call(encoded, shapes, lambda _: max_rows, one_call, tick=tick)

    def _candidates(
        self, prompts: Sequence[Prompt], encoded: Sequence[prompt_batch.Encoded], tick: Tick
    ) -> list[tuple[Candidate, ...]]:
        """Those of each prompt; none where it lists none."""
        asked = [i for i, prompt in enumerate(prompts) if prompt.candidates]
        texts = [prompts[i].candidates for i in asked]
        found = self._likelihoods([encoded[i] for i in asked], texts, closed=False, tick=tick)
        scores = iter(found)
        return [
            tuple(
                Candidate(text, float(log_prob), len(self.tokenizer.encode_behind(e.ending, text)))
                for text, log_prob in zip(prompt.candidates, next(scores), strict=True)
            )
            if prompt.candidates
            else ()
            for prompt, e in zip(prompts, encoded, strict=True)
        ]

    def _token_log_probs(
        self, encoded: Sequence[prompt_batch.Encoded], tick: Tick
    ) -> list[np.ndarray]:
        """f32[tokens] of each prompt, with its padding behind."""
        shapes = [(*e.media_shape, prompt_batch.padded_length(len(e.tokens))) for e in encoded]
        longest = max((length for *_, length in shapes), default=1)
        self._check_length(longest)
        max_rows = calls.rows_within(calls.MAX_SCORED_TOKENS, longest, self.shards)

        def one_call(batch: Batch, rows: Sequence[int]) -> np.ndarray:
            return np.asarray(self._score(self.params, batch))

        return self._by_call(encoded, shapes, lambda _: max_rows, one_call, side="right", tick=tick)

    def _by_call(
        self,
        encoded: Sequence[prompt_batch.Encoded],
        shapes: Sequence[calls.Shape],
        max_rows: Callable[[calls.Shape], int],
        one_call: Callable[[Batch, Sequence[int]], Iterable[Any]],  # results by row of the batch
        *,
        side: Literal["left", "right"] = "left",
        length: int = 0,
        tick: Tick = _no_tick,
    ) -> list[Any]:
        """A result for each prompt, in their order, computed some at a time."""
        size = self.config.vision.preprocessing.size_px
        found: list[Any] = [None] * len(encoded)

        def within(shape: calls.Shape) -> int:
            num_frames = max(1, shape[0] * shape[1])
            each = num_frames * self.feature_bytes
            return min(max_rows(shape), calls.rows_within(calls.MAX_MEDIA_BYTES, each, self.shards))

        for _, rows in calls.calls(shapes, within):
            these = self._filled([encoded[i] for i in rows])
            batch = prompt_batch.to_batch(
                these, self.tokenizer, (size, size, 3), side=side, min_length=length
            )
            for i, result in zip(rows, one_call(batch, rows), strict=False):  # filled ones are last
                found[i] = result
            tick(len(rows))
        return found

    def _encode(self, prompt: Any) -> prompt_batch.Encoded:
        parts = as_prompt(prompt).parts
        encoded = prompt_batch.encode(
            parts, self.tokenizer, self.config.vision.preprocessing, self.video_sampling
        )
        prompt_batch.check_media(encoded, self.config)
        prompt_batch.check_length(encoded, self.config.language_model)
        return encoded

    def _check_length(self, num_slots: int) -> None:
        lm = self.config.language_model
        if lm.positions == "learned" and num_slots > lm.max_length:
            raise PromptError(
                f"a prompt makes {num_slots} tokens, with padding and what is to be written: the "
                f"learned positions end at {lm.max_length}; shorten it, or write fewer"
            )

    def _filled(self, rows: Sequence[Any]) -> list[Any]:
        """Rows of a call, as many as its program is for."""
        return calls.filled(rows, self.shards)

    def program(self, f: Callable) -> Callable:
        """`f(model, *rows)` compiled, to be called with parameters and rows: `serving.program`."""
        return serving.program(lambda p, *rows: f(nnx.merge(self.graph, p), *rows), self.mesh)

    @functools.cached_property
    def _score(self):
        return self.program(score.token_log_probs)

    @functools.cached_property
    def _score_candidates(self):
        return self.program(candidates_lib.log_probs)

    @functools.cache  # noqa: B019, one model a process is the rule
    def _continue(self, decoding: Decoding):
        def run(model, batch, seed, numbers):
            return write(model, batch, jax.random.key(seed), numbers, decoding, self.tokenizer)

        return self.program(run)
