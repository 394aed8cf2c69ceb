"""The numbers that a GGUF file's metadata have under its architecture's name."""

import numpy as np

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.gguf_file import GGUFFile
from flamingo_jax.weights.language_models.gguf_names import ARCHITECTURES, Architecture


class Settings:
    """Of one file; BadWeightsFile for a part of a model, or an architecture that is not read."""

    def __init__(self, file: GGUFFile):
        self.file = file
        if (parts := file.metadata.get("split.count", 1)) != 1:
            raise BadWeightsFile(
                f"{file.path} is one of {parts!r:.10} files of a model: join them with llama.cpp's "
                "llama-gguf-split --merge"
            )
        self.name = file.metadata.get("general.architecture")
        if self.name not in ARCHITECTURES:
            raise BadWeightsFile(
                f"{file.path}: architecture {self.name!r:.60} cannot be read, only "
                f"{[*ARCHITECTURES]} can: use the model's folder of transformers (hf_lm)"
            )
        self.architecture: Architecture = ARCHITECTURES[self.name]

    def __contains__(self, name: str) -> bool:
        return f"{self.name}.{name}" in self.file.metadata or name in self.architecture.defaults

    def positive(self, name: str, default: float | None = None) -> float:
        """BadWeightsFile where it is no number above 0, or absent without a default."""
        default = self.architecture.defaults.get(name, default)
        value = self.file.metadata.get(f"{self.name}.{name}", default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise BadWeightsFile(
                f"{self.file.path}: metadata {self.name}.{name} is {value!r:.40}, want > 0"
            )
        # Stored as float32: 1e-5 comes back as 9.999999747e-06.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def whole(self, name: str, default: int | None = None) -> int:
        return int(self.positive(name, default))

    def optional(self, name: str) -> float | None:
        """None where it is absent or 0, as converters write it too."""
        if self.file.metadata.get(f"{self.name}.{name}", self.architecture.defaults.get(name)):
            return self.positive(name)
        return None
