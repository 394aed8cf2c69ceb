"""The frozen vision encoder: pictures and frames in, a flat grid of features out.

Paper: section 2.1 and appendix A.1.1 (NFNet-F6; frames are encoded one by one). The encoder behind
the interface is chosen by config; each is one file beside this one.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import EncoderActivation, ImagePreprocessing, VisionConfig
from flamingo_jax.core.layers import Projection
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import efficientnet_lite, nfnet, vision_shards, vit

Array = jax.Array

VARIANTS = {
    "efficientnet_lite": efficientnet_lite.VARIANTS,
    "nfnet": nfnet.VARIANTS,
    "vit": vit.VARIANTS,
}

# Of `VisionConfig`, what only some kinds of encoder have; another kind refuses it.
OPTIONS: dict[str, tuple[str, ...]] = {
    "efficientnet_lite": (),
    "nfnet": ("activation", "std_conv_eps"),
    "vit": ("activation", "keep_class_token", "post_norm"),
}


def make_encoder(
    config: VisionConfig, execution: Execution, *, trained: bool = False, rngs: Rngs
) -> nnx.Module:
    """The network of the config: normalised pictures [N, H, W, 3] to features [N, P, E].

    Layers of one that is `trained` are rematerialised as `execution` says; through a frozen one
    nothing runs backward.

    Raises:
      ValueError: no such variant, or an option that this kind has not.
    """
    if config.variant not in VARIANTS[config.kind]:
        valid = list(VARIANTS[config.kind])
        raise ValueError(f"vision.variant={config.variant!r}: of {config.kind} use one of {valid}")
    for name in sorted(set().union(*OPTIONS.values()) - {*OPTIONS[config.kind]}):
        value = getattr(config, name)
        if value not in (None, False):
            raise ValueError(
                f"vision.{name}={value!r}: {config.kind} has no such option, leave it at "
                f"{False if value is True else None}"
            )
    execution = execution if trained else execution.without_remat()
    makers: dict[str, Callable[[], nnx.Module]] = {
        "efficientnet_lite": lambda: efficientnet_lite.EfficientNetLite(config.variant, rngs=rngs),
        "nfnet": lambda: nfnet.NFNet(
            config.variant,
            activation=activation(config),
            std_conv_eps=config.std_conv_eps,
            execution=execution,
            rngs=rngs,
        ),
        "vit": lambda: vit.ViT(
            config.variant,
            keep_class_token=config.keep_class_token,
            post_norm=config.post_norm,
            activation=activation(config),
            size_px=config.preprocessing.size_px,
            execution=execution,
            rngs=rngs,
        ),
    }
    return makers[config.kind]()


def activation(config: VisionConfig) -> EncoderActivation | None:
    """What the config's encoder computes with, named or by default; None where there is no choice.

    Of a variant that there is.
    """
    default = {"nfnet": "gelu_tanh"}.get(config.kind)
    if config.kind == "vit":
        default = vit.VARIANTS[config.variant].activation
    return config.activation or default


@functools.lru_cache(maxsize=64)
def output_shape(config: VisionConfig) -> tuple[int, int]:
    """(P, E) of the config's encoder at its picture size; allocates nothing."""
    size_px = config.preprocessing.size_px
    picture = jax.ShapeDtypeStruct((1, size_px, size_px, 3), jnp.float32)
    out = nnx.eval_shape(lambda x: make_encoder(config, Execution(), rngs=Rngs(0))(x), picture)
    return out.shape[1], out.shape[2]


def check(config: VisionConfig) -> VisionConfig:
    """Returns `config` if what it says of the encoder's output is so, else raises ValueError."""
    for name, want in zip(("num_features", "width"), output_shape(config), strict=True):
        if getattr(config, name) != want:
            raise ValueError(
                f"vision.{name}={getattr(config, name)}: {config.kind} {config.variant} makes "
                f"{want} at vision.preprocessing.size_px={config.preprocessing.size_px}, so use "
                f"{want}"
            )
    return config


def at_size(config: VisionConfig, size_px: int) -> VisionConfig:
    """The same encoder for pictures of another size; ValueError for one that takes only its own."""
    preprocessing = dataclasses.replace(config.preprocessing, size_px=size_px)
    if preprocessing != config.preprocessing and not config.takes_any_size:
        raise ValueError(
            f"vision.preprocessing.size_px={size_px}: {config.kind} {config.variant} has positions "
            f"for {config.preprocessing.size_px} px alone, so leave it at that"
        )
    config = dataclasses.replace(config, preprocessing=preprocessing)
    return dataclasses.replace(config, num_features=output_shape(config)[0])


def normalized(
    pixels: Array,  # u8[..., 3]
    preprocessing: ImagePreprocessing,
) -> Array:  # f32[..., 3]
    """Pixels in the range that the encoder takes."""
    mean, std = jnp.array(preprocessing.mean), jnp.array(preprocessing.std)
    return (pixels.astype(jnp.float32) / 255 - mean) / std


class VisionEncoder(nnx.Module):
    """u8[B, M, F, H, W, 3] to [B, M, F, P, E]; without a gradient unless it is `trained`."""

    def __init__(
        self,
        config: VisionConfig,
        execution: Execution = Execution(),  # noqa: B008, frozen
        *,
        trained: bool = False,
        rngs: Rngs,
    ):
        self.config, self.trained = config, trained
        self.images_at_once = execution.images_at_once
        # No remat of single layers: `vision_shards` does it by the chunk of pictures.
        self.encoder = make_encoder(config, execution, rngs=rngs)
        self.alignment = (
            None
            if config.aligned_width is None
            else Projection(
                [config.width], [config.aligned_width], (None, None), use_bias=True, rngs=rngs
            )
        )

    def __call__(
        self,
        pixels: Array,  # u8[B, M, F, H, W, 3]
        dtype: jnp.dtype = jnp.float32,
        mask: Array | None = None,  # bool[B, M, F], True where there is a picture; None: everywhere
    ) -> Array:  # [B, M, F, P, E]
        """Features as the encoder makes them, before `align`; the ones to cache."""
        mask = jnp.ones(pixels.shape[:3], bool) if mask is None else mask
        return self.encode_all([pixels], [mask], dtype)[0]

    def encode_all(
        self,
        media: Sequence[Array],  # each u8[B, M, F, H, W, 3], of its own B, M, F
        masks: Sequence[Array],  # each bool[B, M, F], True where there is a picture
        dtype: jnp.dtype = jnp.float32,
    ) -> list[Array]:  # each [B, M, F, P, E]
        """Features of several batches' media, in one go over all their pictures."""
        pp = self.config.preprocessing
        graph, state = nnx.split(self.encoder)

        def encoder(params, pixels):
            return nnx.merge(graph, params)(normalized(pixels, pp).astype(dtype))

        features = vision_shards.encode(
            encoder, state, media, masks, self.images_at_once, trained=self.trained
        )
        return features if self.trained else [jax.lax.stop_gradient(x) for x in features]

    def align(self, features: Array) -> Array:  # [..., E] to [..., output_width]
        """Features through the frozen affine map, where configured.

        It stands for what an encoder lacks that was not trained with text: see
        `experiments/frozen/alignment.py`, which finds it.
        """
        return features if self.alignment is None else self.alignment(features)
