"""A language model small enough to decode by hand: the next token depends on the last one only."""

import jax
import jax.numpy as jnp
import numpy as np

from flamingo_jax.decode.cache import DecodeState

START, END, IMAGE, PAD = 3, 4, 5, 6  # 0, 1 and 2 are words
VOCAB = 7


class Chain:
    """Stands for `prefill` and `step`: probabilities by the token before, `START` at first."""

    def __init__(self, probabilities: dict[int, dict[int, float]], batch_size: int = 1):
        table = np.full((VOCAB, VOCAB), 1e-9)
        for before, row in probabilities.items():
            for after, p in row.items():
                table[before, after] = p
        self.log_probs = jnp.asarray(np.log(table), jnp.float32)
        self.batch_size = batch_size
        self.steps_run: list[None] = []

    def prefill(self, model, prompt, max_new_tokens, beams=1):
        del model, prompt, max_new_tokens, beams
        b = self.batch_size
        nothing = jnp.zeros((b, 1), bool)
        last, first = jnp.zeros(b, jnp.int32), jnp.zeros((), jnp.int32)
        state = DecodeState({}, nothing, {}, nothing, last, {}, first)
        return self.log_probs[jnp.full(b, START)], state

    def step(self, model, tokens, state):
        del model
        jax.debug.callback(lambda: self.steps_run.append(None))
        return self.log_probs[tokens], state

    def install(self, monkeypatch, module) -> "Chain":
        """Decodes with the chain in `module` (`sampler` or `beam`)."""
        monkeypatch.setattr(module, "prefill", self.prefill)
        monkeypatch.setattr(module, "step", self.step)
        return self

    def num_steps(self) -> int:
        """How often the model ran after the prompt."""
        jax.effects_barrier()
        return len(self.steps_run)
