"""Every part's architecture as a frozen dataclass; the numbers of the paper's Table 4 go in here.

Only the standard library is imported, so a config can be read where no array library is. Values are
checked where they are written down (`__post_init__`), and the message names the field, its value
and the values that work. `from_dict` and `to_dict` are the only way in and out of JSON.
"""

import dataclasses
from typing import Literal

from flamingo_jax.checked_dict import from_dict as from_dict
from flamingo_jax.checked_dict import to_dict as to_dict
from flamingo_jax.config_checks import check_divides, check_sizes
from flamingo_jax.rope_config import LinearScaling as LinearScaling
from flamingo_jax.rope_config import Llama3Scaling as Llama3Scaling
from flamingo_jax.rope_config import LongRopeScaling as LongRopeScaling
from flamingo_jax.rope_config import RopeScaling as RopeScaling
from flamingo_jax.rope_config import YarnScaling as YarnScaling

Initializer = Literal["random", "zeros", "identity"]  # of a linear map
Activation = Literal["squared_relu", "gelu", "gelu_tanh", "relu", "silu"]
Precision = Literal["float32", "bfloat16"]
FrozenPart = Literal["language_model", "vision"]
EncoderActivation = Literal["quick_gelu", "gelu", "gelu_tanh", "relu", "silu"]


@dataclasses.dataclass(frozen=True)
class DTypePolicy:
    """Which numbers are kept and computed in which precision (paper, appendix B.1.2).

    The paper keeps trained parameters and optimizer state in float32, frozen ones in bfloat16, and
    computes in bfloat16. Norm statistics, softmax, gates, logits and the loss are float32 always.
    """

    frozen: Precision = "bfloat16"
    trainable: Precision = "float32"
    compute: Precision = "bfloat16"


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """A decoder-only language model (paper: Chinchilla; public: Llama and its kin)."""

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    head_dim: int
    ffw_width: int
    num_kv_heads: int | None = None  # None: as many as num_heads
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    norm_bias: bool = True  # of layernorm; MPT has none
    norm_offset: bool = False  # norms multiply by 1 + scale (Gemma)
    norm_after: bool = False  # what attention and feed-forward give, not what they take (OLMo 2)
    sandwich_norm: bool = False  # both, by norms of their own (Gemma 2)
    qk_norm: bool = False  # a norm over all heads' queries, another over the keys (MPT-1B)
    qk_norm_by_head: bool = False  # those norms over each head by itself (Qwen3)
    activation: Activation = "silu"
    gated_ffw: bool = True  # SwiGLU and its kin; False is a plain two-layer feed-forward
    positions: Literal["rope", "alibi", "relative", "learned"] = "rope"
    rope_base: float = 10_000.0
    rope_dims: int | None = None  # the first dims of a head that rotate; None: all (GPT-NeoX: 1/4)
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None  # of tokens that one sees, itself the last; None: all before
    global_layers: tuple[int, ...] = ()  # that see all, where the others have a window (Gemma 2)
    local_rope_base: float | None = None  # of layers with a window, unscaled; None: as the others
    query_pre_attn_scalar: float | None = None  # logits are over its root; None: over head_dim's
    attention_softcap: float | None = None  # bound of attention's logits (Gemma 2)
    logits_softcap: float | None = None  # bound of the vocabulary's
    parallel_residual: bool = False  # the feed-forward reads what attention reads (GPT-NeoX)
    use_bias: bool = False  # on every projection of a block
    qkv_bias: bool = False  # on those to queries, keys and values alone (Qwen2)
    scale_embedding: bool = False  # by the square root of the width (Gemma)
    tied_head: bool = True
    max_length: int = 2048  # trained context; the rows of learned positions

    def __post_init__(self):
        sizes = ("vocab_size", "num_layers", "width", "num_heads", "head_dim", "ffw_width")
        check_sizes(self, "language_model", *sizes, "max_length")
        check_divides("language_model.num_kv_heads", self.kv_heads, "num_heads", self.num_heads)
        rotated = self.rotated_dims
        if self.positions == "rope" and (rotated % 2 or not 0 < rotated <= self.head_dim):
            raise ValueError(
                f"language_model.rope_dims={rotated}: use an even number up to "
                f"head_dim={self.head_dim}"
            )
        if isinstance(self.rope_scaling, LongRopeScaling):
            self.rope_scaling.check_dims(rotated)
        if self.positions == "relative" and self.width % 2:
            raise ValueError(
                f"language_model.width={self.width}: relative positions need an even number"
            )
        if self.norm_after and self.sandwich_norm:
            raise ValueError("language_model.norm_after and sandwich_norm: set one of them")
        for name in ("query_pre_attn_scalar", "attention_softcap", "logits_softcap"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"language_model.{name}={value}: use more than 0, or None")
        self._check_windows()

    def _check_windows(self) -> None:
        if self.sliding_window is not None:
            check_sizes(self, "language_model", "sliding_window")
        elif self.global_layers or self.local_rope_base is not None:
            raise ValueError(
                f"language_model.global_layers={self.global_layers}, local_rope_base="
                f"{self.local_rope_base}: without a sliding_window all layers are global: give "
                "one, or leave these out"
            )
        if not {*self.global_layers} <= {*range(self.num_layers)}:
            raise ValueError(
                f"language_model.global_layers={self.global_layers}: the language model has "
                f"{self.num_layers} layers, so use 0 to {self.num_layers - 1}"
            )

    def window(self, layer: int) -> int | None:
        """Tokens that one sees in a layer; None: all before. A graft's layers are numbered on.

        They have a window where all others do.
        """
        on_top = layer >= self.num_layers and self.global_layers
        return None if on_top or layer in self.global_layers else self.sliding_window

    @property
    def rotated_dims(self) -> int:
        """Of a head, with rotary positions."""
        return self.head_dim if self.rope_dims is None else self.rope_dims

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads


@dataclasses.dataclass(frozen=True)
class ImagePreprocessing:
    """From a decoded picture to the uint8 square the encoder takes, and on to its input range.

    `fit`: the whole picture with `pad` beside it (the paper), its middle square (CLIP), or the
    whole picture stretched (IDEFICS).
    """

    size_px: int = 320
    fit: Literal["pad", "crop", "stretch"] = "pad"
    background: tuple[int, int, int] = (255, 255, 255)  # seen through transparent pixels
    pad: tuple[int, int, int] = (124, 116, 104)  # the paper pads with the mean value
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of values in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        check_sizes(self, "preprocessing", "size_px")
        for name in ("background", "pad"):
            if not all(0 <= value <= 255 for value in getattr(self, name)):
                raise ValueError(f"preprocessing.{name}={getattr(self, name)}: use 0 to 255")
        if min(self.std) <= 0:
            raise ValueError(f"preprocessing.std={self.std}: use more than 0")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A frozen image encoder; `kind` names the file in `flamingo_jax/models/`.

    `num_features` and `width` follow from the rest, and are written down so that who reads a config
    knows the shapes; `models.vision.check` refuses others than the encoder's own.
    """

    kind: Literal["efficientnet_lite", "nfnet", "vit"]
    variant: str
    num_features: int  # P, features a frame at preprocessing.size_px
    width: int  # E, channels of one feature
    preprocessing: ImagePreprocessing = ImagePreprocessing()
    aligned_width: int | None = None  # of a frozen affine map of every feature, see models/vision
    activation: EncoderActivation | None = None  # of nfnet and vit; None: what its weights want
    std_conv_eps: float | None = None  # of nfnet: 1e-5 for timm's weights, None for DeepMind's
    keep_class_token: bool = False  # of vit, as the first feature (IDEFICS)
    post_norm: bool = False  # of vit: CLIP's last norm over every feature (newer OpenFlamingos)

    @property
    def output_width(self) -> int:
        """Channels of a feature as the resampler gets it."""
        return self.width if self.aligned_width is None else self.aligned_width

    @property
    def takes_any_size(self) -> bool:
        """Whether its weights are for pictures of every size: a ViT has positions for one alone."""
        return self.kind != "vit"


@dataclasses.dataclass(frozen=True)
class ResamplerConfig:
    """Perceiver Resampler (paper, section 2.1 and appendix A.1.1; Table 4) and its two ablations.

    All kinds have as many weights in their layers; see `models/resampler_ablations.py`.
    """

    kind: Literal["perceiver", "transformer", "mlp"] = "perceiver"
    num_latents: int = 64
    depth: int = 6
    width: int = 1536
    num_heads: int = 16
    head_dim: int = 96
    ffw_multiplier: int = 4
    activation: Activation = "squared_relu"
    values_init: Literal["random", "identity"] = "random"  # of perceiver layers' values and outputs
    normalize_media: bool = True  # perceiver layers norm features; without, longer ones weigh more
    num_frames: int = 8  # learned temporal embeddings; 0 is none
    interpolate_frames: bool = True  # other frame counts than num_frames
    qk_norm: bool = False  # perceiver layers norm each head's queries and keys (IDEFICS)

    def __post_init__(self):
        sizes = ("num_latents", "depth", "width", "num_heads", "head_dim", "ffw_multiplier")
        check_sizes(self, "resampler", *sizes)
        check_sizes(self, "resampler", "num_frames", least=0)

    def check_num_frames(self, num_frames: int, field: str) -> None:
        """ValueError where `field` asks for more frames than there are temporal embeddings for."""
        if num_frames > self.num_frames > 0 and not self.interpolate_frames:
            raise ValueError(
                f"{field}={num_frames}: resampler.num_frames={self.num_frames} and "
                f"resampler.interpolate_frames=False: use 1 to {self.num_frames}, or interpolate"
            )


@dataclasses.dataclass(frozen=True)
class CrossAttentionConfig:
    """GATED XATTN-DENSE blocks (paper, section 2.2 and appendix A.1.2; Table 4), and ablations.

    A block stands before language-model block `offset`, `offset + every`, and so on to the end.
    Where the kinds stand is drawn in `models/insertion.py`.
    """

    kind: Literal["gated", "vanilla", "graft"] = "gated"
    every: int = 1
    offset: int = 0
    graft_depth: int = 18  # layers on top of the language model; of kind graft only
    gating: Literal["tanh", "none"] = "tanh"
    num_heads: int = 16
    head_dim: int = 128
    ffw_multiplier: int = 4
    activation: Activation = "squared_relu"
    normalize_media: bool = True  # layer norm on keys and values; OpenFlamingo has none
    values_init: Literal["random", "identity"] = "random"  # identity: a branch begins by copying
    media_width: int | None = None  # visual tokens are projected to it; None: the resampler's width
    branch_scale: float = 1.0  # of both branches; public LMs can have 10 times the residual stream
    attend: Literal["last", "all_previous"] = "last"
    # IDEFICS's blocks are made as its language model's are:
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"  # all norms of a block
    norm_eps: float = 1e-5
    qk_norm: bool = False  # that norm of each head's queries and keys
    gated_ffw: bool = False  # SwiGLU where the activation is silu
    ffw_width: int | None = None  # None: ffw_multiplier times the language model's width
    gate_per_channel: bool = False  # a learned vector for each gate, not a scalar

    def __post_init__(self):
        sizes = ("every", "graft_depth", "num_heads", "head_dim", "ffw_multiplier")
        check_sizes(self, "cross_attention", *sizes)
        for name in ("media_width", "ffw_width"):
            if getattr(self, name) is not None:
                check_sizes(self, "cross_attention", name)

    def hidden_width(self, width: int) -> int:
        """Of the feed-forward, in a block for a language model of this width."""
        return self.ffw_multiplier * width if self.ffw_width is None else self.ffw_width


@dataclasses.dataclass(frozen=True)
class FlamingoConfig:
    """The whole model: two frozen parts, two trained ones, and the new tokens' embeddings."""

    language_model: LanguageModelConfig
    vision: VisionConfig
    resampler: ResamplerConfig
    cross_attention: CrossAttentionConfig
    num_new_tokens: int = 2  # rows beyond the frozen vocabulary: <image>, <EOC>
    train_new_inputs: bool = True  # False: new rows learn as outputs only, see models/flamingo.py
    trained: tuple[FrozenPart, ...] = ()  # of the frozen parts, those that learn too: ablations

    def __post_init__(self):
        every, offset = self.cross_attention.every, self.cross_attention.offset
        depth = self.language_model.num_layers
        check_sizes(self, "model", "num_new_tokens")
        if len(set(self.trained)) < len(self.trained):
            raise ValueError(f"model.trained={self.trained}: name each part once")
        if "vision" in self.trained and self.vision.aligned_width is not None:
            raise ValueError(
                f"model.vision.aligned_width={self.vision.aligned_width}: the map is found from a "
                "frozen encoder's features: leave 'vision' out of model.trained, or use None"
            )
        if not 0 <= offset < depth:
            raise ValueError(
                f"cross_attention.offset={offset}: the language model has {depth} blocks, "
                f"so use 0 to {depth - 1}"
            )
        if self.cross_attention.kind == "vanilla" and every != 1:
            raise ValueError(
                f"cross_attention.every={every}: of kind vanilla, which stands inside every block, "
                "use 1"
            )
        self._check_identity("resampler", self.resampler, self.resampler.width)
        xattn, width = self.cross_attention, self.language_model.width
        self._check_identity("cross_attention", xattn, width)
        if xattn.values_init == "identity" and self.media_width != width:
            raise ValueError(
                f"cross_attention.values_init=identity: visual tokens are {self.media_width} wide, "
                f"the language model {width}; make resampler.width or cross_attention.media_width "
                "the same, or use random"
            )

    @staticmethod
    def _check_identity(name: str, part: "ResamplerConfig | CrossAttentionConfig", width: int):
        if part.values_init == "identity" and part.num_heads * part.head_dim != width:
            raise ValueError(
                f"{name}.values_init=identity: {name}.num_heads={part.num_heads} of "
                f"head_dim={part.head_dim} do not make its width {width}; change them or use random"
            )

    @property
    def media_width(self) -> int:
        """Channels of the visual tokens that the gated blocks' keys and values read."""
        width = self.cross_attention.media_width
        return self.resampler.width if width is None else width

    @property
    def vocab_size(self) -> int:
        """Frozen and new rows together; the width of the logits."""
        return self.language_model.vocab_size + self.num_new_tokens
