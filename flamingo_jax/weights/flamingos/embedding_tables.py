"""The tables that a checkpoint of OpenFlamingo repeats from its language model.

Its embedding has rows of its own behind the tokenizer's; all others were frozen, so they must be
the language model's own, which shows whether the two belong together.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files
from flamingo_jax.weights.flamingos.conversion import compare_rows
from flamingo_jax.weights.language_models import hf_lm_names


def read(path: pathlib.Path, family: str) -> dict[str, np.ndarray]:
    """`embedding`, `head` and `positions`, those that a language model's files have; no others."""
    found = checkpoint_files.tensors(path, lambda name: _kind(name, family) is not None)
    return {_kind(name, family): tensor for name, tensor in found.items()}


def _kind(name: str, family: str) -> str | None:
    names = hf_lm_names.NAMES[family]
    kinds = {names.embedding: "embedding", names.head: "head", "lm_head": "head"}
    if names.positions:
        kinds[names.positions] = "positions"
    return kinds.get(hf_lm_names.bare_name(name, family).removesuffix(".weight"))


class EmbeddingTables:
    """Embedding, head and positions, in the checkpoint and in the language model's own files."""

    def __init__(
        self,
        file: pathlib.Path,  # the checkpoint, for messages
        tensors: Mapping[str, np.ndarray],  # those in it that are the language model's
        path: pathlib.Path,  # of the language model
        family: str,  # its `model_type`
        lm: LanguageModelConfig,
    ):
        self._file, self._tensors, self._path, self._lm = file, tensors, path, lm
        kinds = {name: _kind(name, family) for name in tensors}
        self._own = {kind: name for name, kind in kinds.items() if kind}
        self._base = read(path, family)
        self.taken = {*self._own.values()}
        self.lacks_head = "head" not in self._own and not lm.tied_head
        self.names = ["embedding"] + ["head"] * (not lm.tied_head and not self.lacks_head)
        self.names += ["positions"] * ("positions" in self._own)

    def of_checkpoint(self, name: str) -> np.ndarray:
        """[rows, D]; BadWeightsFile where it is not there."""
        if name not in self._own:
            raise BadWeightsFile(
                f"{self._file} has no {name} of the language model, whose new rows are "
                "wanted: save it with OpenFlamingo's filter, which keeps them"
            )
        table = self._tensors[self._own[name]]
        if table.ndim != 2 or table.shape[1] != self._lm.width:
            raise BadWeightsFile(
                f"{self._file}: {self._own[name]} is {list(table.shape)}, the language "
                f"model {self._path} is {self._lm.width} wide: give the one it was trained on"
            )
        return table

    def compare(self, name: str, num_ids: int) -> tuple[int, float]:
        """(rows, largest difference) of what both have; BadWeightsFile where they differ."""
        base = self._base.get(name)
        if base is None:
            raise BadWeightsFile(f"{self._path} has no {name} among its tensors: copy it anew")
        found = self.of_checkpoint(name)
        if name != "positions":
            found, base = found[:num_ids], base[:num_ids]
        if found.shape != base.shape:
            raise BadWeightsFile(
                f"{self._file}: {self._own[name]} is {list(found.shape)}, that of "
                f"{self._path} {list(base.shape)}: give the language model it was trained on"
            )
        where = f"{self._file}: {self._own[name]}"
        return len(base), compare_rows(where, found, base)

    def check_tied(self) -> None:
        """BadWeightsFile where a head that is tied to the embedding is another."""
        if self._lm.tied_head and "head" in self._own:
            embedding, head = self.of_checkpoint("embedding"), self.of_checkpoint("head")
            if not np.array_equal(embedding, head):
                raise BadWeightsFile(
                    f"{self._file}: {self._own['head']} differs from the embedding, "
                    f"and {self._path} ties them: give the language model it was trained on"
                )
