"""The contrastive stage's two towers as frozen dataclasses (paper, appendix B.1.3).

Read as `flamingo_jax.config` is, which has the vision encoder's. The paper names BERT for its text
tower and gives no size, and no starting temperature; those here are ALIGN's, which it follows.
"""

import dataclasses

from flamingo_jax.config import VisionConfig


@dataclasses.dataclass(frozen=True)
class TextTowerConfig:
    """BERT (Devlin et al. 2019); the default is its Large size."""

    vocab_size: int  # rows of the tokenizer, <image> and <EOC> among them
    num_layers: int = 24
    width: int = 1024
    num_heads: int = 16
    ffw_width: int = 4096
    max_length: int = 64  # tokens, each with a learned position
    norm_eps: float = 1e-12

    def __post_init__(self):
        for name in ("vocab_size", "num_layers", "width", "num_heads", "ffw_width", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"text.{name}={getattr(self, name)}: use 1 or more")
        if self.width % self.num_heads:
            raise ValueError(
                f"text.num_heads={self.num_heads} does not divide text.width={self.width}"
            )


@dataclasses.dataclass(frozen=True)
class TwoTowersConfig:
    """A vision encoder and a text tower that meet in one space."""

    vision: VisionConfig
    text: TextTowerConfig
    joint_width: int = 1376
    inverse_temperature: float = 1.0  # where the learned one begins
    label_smoothing: float = 0.1
    stochastic_depth: bool = False  # of nfnet, at its ImageNet rate; the paper does not say

    def __post_init__(self):
        if self.joint_width < 1:
            raise ValueError(f"joint_width={self.joint_width}: use 1 or more")
        if not self.inverse_temperature > 0:
            raise ValueError(f"inverse_temperature={self.inverse_temperature}: use more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: use 0 to below 1")
        if self.stochastic_depth and self.vision.kind != "nfnet":
            raise ValueError(f"stochastic_depth=True: {self.vision.kind} has none, use False")
        if self.vision.aligned_width is not None:
            raise ValueError(
                f"vision.aligned_width={self.vision.aligned_width}: the contrastive stage trains "
                "the encoder itself, so use None"
            )
