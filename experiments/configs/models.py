"""Architectures by name, as `flamingo_jax.config.FlamingoConfig` takes them."""

from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    ImagePreprocessing,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
    to_dict,
)

# EfficientNet-Lite takes values in [-1, 1]; emoji stand on white, so white is their padding.
LITE0 = ImagePreprocessing(
    size_px=224, pad=(255, 255, 255), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def micro() -> dict:
    """Small in every number, with every feature on: a segment before, two groups, and a rest."""
    return to_dict(
        FlamingoConfig(
            language_model=LanguageModelConfig(
                vocab_size=259,
                num_layers=6,
                width=32,
                num_heads=4,
                head_dim=8,
                ffw_width=64,
                num_kv_heads=2,
                max_length=256,
            ),
            vision=VisionConfig(
                "efficientnet_lite",
                "thin",
                num_features=4,
                width=1280,
                preprocessing=ImagePreprocessing(size_px=64, pad=(255, 255, 255)),
            ),
            resampler=ResamplerConfig(
                num_latents=4, depth=2, width=32, num_heads=2, head_dim=16, num_frames=2
            ),
            cross_attention=CrossAttentionConfig(every=2, offset=1, num_heads=2, head_dim=16),
            num_new_tokens=2,
        )
    )


def demo() -> dict:
    """SmolLM2-135M and EfficientNet-Lite0, joined by 21M trained parameters.

    Five gated blocks stand from the middle up: the layers below the first one need no backward
    pass, and with four from layer 17 on the run learns less in the same steps.
    """
    return to_dict(
        FlamingoConfig(
            language_model=LanguageModelConfig(
                vocab_size=49_152,
                num_layers=30,
                width=576,
                num_heads=9,
                head_dim=64,
                ffw_width=1536,
                num_kv_heads=3,
                rope_base=100_000.0,
                max_length=8192,
            ),
            vision=VisionConfig(
                "efficientnet_lite",
                "lite0",
                num_features=49,
                width=1280,
                preprocessing=LITE0,
                aligned_width=576,  # the language model's, see experiments/frozen/alignment.py
            ),
            resampler=ResamplerConfig(
                num_latents=16,
                depth=2,
                width=576,
                num_heads=9,
                head_dim=64,
                values_init="identity",
                normalize_media=False,  # what shows a thing is longer than what shows its ground
                num_frames=1,
            ),
            cross_attention=CrossAttentionConfig(
                every=4,
                offset=12,
                num_heads=9,
                head_dim=64,
                ffw_multiplier=2,
                values_init="identity",
                branch_scale=8.0,  # the residual stream has a standard deviation of 7 to 20 here
            ),
            num_new_tokens=2,
            train_new_inputs=False,
        )
    )
