"""How continuations are written: greedily, by beam search, or drawn.

Paper: appendix B.3; it scores with 3 beams and shows greedy samples.
"""

import dataclasses
from typing import Literal

import jax

from flamingo_jax.batch import Batch
from flamingo_jax.decode import beam, sampler
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.tokenizer import Tokenizer

Array = jax.Array
_MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The method and its settings; ValueError for those that make no sense."""

    method: Literal["greedy", "beam", "sample"] = "greedy"
    num_beams: int = 3
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 32
    seed: int = 0

    def __post_init__(self):
        if self.method not in ("greedy", "beam", "sample"):
            raise ValueError(f"decode={self.method!r}: use greedy, beam or sample")
        for field in ("num_beams", "max_tokens"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}: use 1 or more")
        if not 0 <= self.seed <= _MAX_SEED:  # JAX would take the lower 32 bits of a larger one
            raise ValueError(f"seed={self.seed}: use 0 to {_MAX_SEED}")
        sampler.SamplingConfig(self.temperature, self.top_k, self.top_p)

    def program(self) -> "Decoding":
        """The same without what changes nothing in the compiled program."""
        names = {"beam": ["num_beams"], "sample": ["temperature", "top_k", "top_p"]}
        kept = {name: getattr(self, name) for name in names.get(self.method, [])}
        return Decoding(self.method, max_tokens=self.max_tokens, **kept)


def write(
    model: Flamingo,
    batch: Batch,
    key: Array,
    numbers: Array,  # u32[B], of the prompts, from which a row's own key is made
    decoding: Decoding,
    tokenizer: Tokenizer,
) -> sampler.Continuation:
    """Continues each row until `<EOC>`, end of text, or `max_tokens`."""
    common = {
        "max_tokens": decoding.max_tokens,
        "stop_ids": (tokenizer.end_of_chunk_id, tokenizer.eos_id),
        "pad_id": tokenizer.pad_id,
        "never_ids": tuple(tokenizer.never_written),
    }
    if decoding.method == "beam":
        return beam.beam_search(model, batch, num_beams=decoding.num_beams, **common)
    temperature = decoding.temperature if decoding.method == "sample" else 0.0
    sampling = sampler.SamplingConfig(temperature, decoding.top_k, decoding.top_p)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return sampler.sample(model, batch, keys, config=sampling, **common)
