"""Language models by name: the paper's family at its sizes, and the public ones Flamingos stand on.

Chinchilla's shapes are those of its paper (table A9) and, for the three inside Flamingo, of
Flamingo's table 4: 1.4B, 7B and 70B parameters with a tied vocabulary of 32,000.
"""

from typing import Any

from flamingo_jax.config import LanguageModelConfig, LinearScaling, Llama3Scaling


def _chinchilla(layers: int, width: int, heads: int, head_dim: int) -> LanguageModelConfig:
    return LanguageModelConfig(
        vocab_size=32_000,
        num_layers=layers,
        width=width,
        num_heads=heads,
        head_dim=head_dim,
        ffw_width=4 * width,
        activation="gelu",
        gated_ffw=False,
        positions="relative",
    )


def _llama(
    layers: int, width: int, heads: int, ffw_width: int, eps: float = 1e-6
) -> LanguageModelConfig:
    return LanguageModelConfig(
        vocab_size=32_000,
        num_layers=layers,
        width=width,
        num_heads=heads,
        head_dim=width // heads,
        ffw_width=ffw_width,
        norm_eps=eps,
        tied_head=False,
    )


def _newer(
    layers: int,
    width: int,
    heads: tuple[int, int],  # of queries, of keys and values
    ffw_width: int,
    vocab: int,
    head_dim: int = 128,
    **settings: Any,
) -> LanguageModelConfig:
    """A descendant of LLaMA with grouped heads."""
    return LanguageModelConfig(
        vocab_size=vocab,
        num_layers=layers,
        width=width,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=head_dim,
        ffw_width=ffw_width,
        **settings,
    )


def _smollm2(
    layers: int, width: int, heads: tuple[int, int], ffw_width: int, base: float
) -> LanguageModelConfig:
    return _newer(
        *(layers, width, heads, ffw_width, 49_152),
        head_dim=64,
        rope_base=base,
        max_length=8192,
    )


def _llama_3(
    layers: int, width: int, heads: int, ffw_width: int, factor: float, *, tied: bool
) -> LanguageModelConfig:
    """3.1 and 3.2; `factor` is how much slower the slow dims turn."""
    return _newer(
        *(layers, width, (heads, 8), ffw_width, 128_256),
        head_dim=width // heads,
        rope_base=500_000.0,
        rope_scaling=Llama3Scaling(factor, slow_turns=1.0, fast_turns=4.0, trained_length=8192),
        tied_head=tied,
        max_length=131_072,
    )


def _qwen2(
    layers: int,
    width: int,
    heads: tuple[int, int],
    ffw_width: int,
    vocab: int = 151_936,
    *,
    tied: bool = True,
) -> LanguageModelConfig:
    """2 and 2.5."""
    return _newer(
        *(layers, width, heads, ffw_width, vocab),
        head_dim=width // heads[0],
        norm_eps=1e-6,
        rope_base=1_000_000.0,
        qkv_bias=True,
        tied_head=tied,
        max_length=32_768,
    )


def _qwen3(
    layers: int, width: int, heads: int, ffw_width: int, *, tied: bool = True
) -> LanguageModelConfig:
    return _newer(
        *(layers, width, (heads, 8), ffw_width, 151_936),
        norm_eps=1e-6,
        rope_base=1_000_000.0,
        qk_norm=True,
        qk_norm_by_head=True,
        tied_head=tied,
        max_length=32_768,
    )


def _gemma(
    layers: int,
    width: int,
    heads: tuple[int, int],
    ffw_width: int,
    vocab: int = 256_000,
    head_dim: int = 256,
    max_length: int = 8192,
    **settings: Any,
) -> LanguageModelConfig:
    return _newer(
        *(layers, width, heads, ffw_width, vocab, head_dim),
        norm_eps=1e-6,
        norm_offset=True,
        activation="gelu_tanh",
        scale_embedding=True,
        max_length=max_length,
        **settings,
    )


def _gemma_2(
    layers: int,
    width: int,
    heads: tuple[int, int],
    ffw_width: int,
    head_dim: int = 256,
    scalar: float = 256.0,
) -> LanguageModelConfig:
    """Every other layer has a window."""
    return _gemma(
        *(layers, width, heads, ffw_width),
        head_dim=head_dim,
        sandwich_norm=True,
        sliding_window=4096,
        global_layers=tuple(range(1, layers, 2)),
        query_pre_attn_scalar=scalar,
        attention_softcap=50.0,
        logits_softcap=30.0,
    )


def _gemma_3(
    layers: int,
    width: int,
    heads: tuple[int, int],
    ffw_width: int,
    head_dim: int = 256,
    scalar: float = 256.0,
    *,
    small: bool = False,  # of text alone, for shorter ones
) -> LanguageModelConfig:
    """Of six layers five have a window."""
    return _gemma(
        *(layers, width, heads, ffw_width, 262_144 if small else 262_208, head_dim),
        max_length=32_768 if small else 131_072,
        sandwich_norm=True,
        qk_norm=True,
        qk_norm_by_head=True,
        sliding_window=512 if small else 1024,
        global_layers=tuple(range(5, layers, 6)),
        rope_base=1_000_000.0,
        rope_scaling=None if small else LinearScaling(8.0),
        local_rope_base=10_000.0,
        query_pre_attn_scalar=scalar,
    )


def _olmo_2(layers: int, width: int, heads: int, ffw_width: int) -> LanguageModelConfig:
    return _newer(
        *(layers, width, (heads, heads), ffw_width, 100_352),
        norm_eps=1e-6,
        norm_after=True,
        qk_norm=True,
        rope_base=500_000.0,
        tied_head=False,
        max_length=4096,
    )


def _mpt(layers: int, width: int, heads: int, vocab: int, *, qk_norm: bool) -> LanguageModelConfig:
    return LanguageModelConfig(
        vocab_size=vocab,
        num_layers=layers,
        width=width,
        num_heads=heads,
        head_dim=width // heads,
        ffw_width=4 * width,
        norm="layernorm",
        norm_bias=False,
        qk_norm=qk_norm,
        activation="gelu",
        gated_ffw=False,
        positions="alibi",
    )


def _gpt_neox(
    layers: int, width: int, heads: int, vocab: int, *, rotary: float, parallel: bool
) -> LanguageModelConfig:
    head_dim = width // heads
    return LanguageModelConfig(
        vocab_size=vocab,
        num_layers=layers,
        width=width,
        num_heads=heads,
        head_dim=head_dim,
        ffw_width=4 * width,
        norm="layernorm",
        activation="gelu",
        gated_ffw=False,
        rope_dims=int(head_dim * rotary),
        parallel_residual=parallel,
        use_bias=True,
        tied_head=False,
    )


def _pythia(layers: int, width: int, heads: int, vocab: int = 50_304) -> LanguageModelConfig:
    return _gpt_neox(layers, width, heads, vocab, rotary=0.25, parallel=True)


def _learned(
    layers: int, width: int, heads: int, vocab: int, length: int, activation: str
) -> LanguageModelConfig:
    return LanguageModelConfig(
        vocab_size=vocab,
        num_layers=layers,
        width=width,
        num_heads=heads,
        head_dim=width // heads,
        ffw_width=4 * width,
        norm="layernorm",
        activation=activation,
        gated_ffw=False,
        positions="learned",
        use_bias=True,
        max_length=length,
    )


def _opt(layers: int, width: int, heads: int) -> LanguageModelConfig:
    return _learned(layers, width, heads, 50_272, 2048, "relu")


def _gpt2(layers: int, width: int, heads: int) -> LanguageModelConfig:
    return _learned(layers, width, heads, 50_257, 1024, "gelu_tanh")


LANGUAGE_MODELS: dict[str, LanguageModelConfig] = {
    "chinchilla_44m": _chinchilla(8, 512, 8, 64),
    "chinchilla_117m": _chinchilla(12, 768, 12, 64),
    "chinchilla_251m": _chinchilla(16, 1024, 16, 64),
    "chinchilla_425m": _chinchilla(18, 1280, 10, 128),
    "chinchilla_1429m": _chinchilla(25, 2048, 16, 128),
    "chinchilla_6796m": _chinchilla(40, 3584, 28, 128),  # Flamingo-9B's, if 40 layers are right
    "chinchilla_1b": _chinchilla(24, 2048, 16, 128),  # in Flamingo-3B: 1.4B
    "chinchilla_7b": _chinchilla(32, 4096, 32, 128),  # in Flamingo-9B, by its parameter count
    "chinchilla_70b": _chinchilla(80, 8192, 64, 128),  # in Flamingo-80B
    "llama_7b": _llama(32, 4096, 32, 11_008),
    "llama_65b": _llama(80, 8192, 64, 22_016, eps=1e-5),
    "mpt_1b": _mpt(24, 2048, 16, 50_368, qk_norm=True),
    "mpt_7b": _mpt(32, 4096, 32, 50_432, qk_norm=False),
    "redpajama_3b": _gpt_neox(32, 2560, 32, 50_432, rotary=1.0, parallel=False),
    "pythia_70m": _pythia(6, 512, 8),
    "pythia_160m": _pythia(12, 768, 12),
    "pythia_410m": _pythia(24, 1024, 16),
    "pythia_1b": _pythia(16, 2048, 8),
    "pythia_1.4b": _pythia(24, 2048, 16),
    "pythia_2.8b": _pythia(32, 2560, 32),
    "pythia_6.9b": _pythia(32, 4096, 32, 50_432),
    "pythia_12b": _pythia(36, 5120, 40, 50_688),
    "opt_125m": _opt(12, 768, 12),
    "opt_1.3b": _opt(24, 2048, 32),
    "opt_2.7b": _opt(32, 2560, 32),
    "opt_6.7b": _opt(32, 4096, 32),
    "opt_13b": _opt(40, 5120, 40),
    "opt_30b": _opt(48, 7168, 56),
    "opt_66b": _opt(64, 9216, 72),
    "gpt2": _gpt2(12, 768, 12),
    "gpt2_medium": _gpt2(24, 1024, 16),
    "gpt2_large": _gpt2(36, 1280, 20),
    "gpt2_xl": _gpt2(48, 1600, 25),
    "smollm2_135m": _smollm2(30, 576, (9, 3), 1536, 100_000.0),
    "smollm2_360m": _smollm2(32, 960, (15, 5), 2560, 100_000.0),
    "smollm2_1.7b": _smollm2(24, 2048, (32, 32), 8192, 130_000.0),
    "llama_3.1_8b": _llama_3(32, 4096, 32, 14_336, 8.0, tied=False),
    "llama_3.1_70b": _llama_3(80, 8192, 64, 28_672, 8.0, tied=False),
    "llama_3.2_1b": _llama_3(16, 2048, 32, 8192, 32.0, tied=True),
    "llama_3.2_3b": _llama_3(28, 3072, 24, 8192, 32.0, tied=True),
    "qwen2.5_0.5b": _qwen2(24, 896, (14, 2), 4864),
    "qwen2.5_1.5b": _qwen2(28, 1536, (12, 2), 8960),
    "qwen2.5_3b": _qwen2(36, 2048, (16, 2), 11_008),
    "qwen2.5_7b": _qwen2(28, 3584, (28, 4), 18_944, 152_064, tied=False),
    "qwen3_0.6b": _qwen3(28, 1024, 16, 3072),
    "qwen3_1.7b": _qwen3(28, 2048, 16, 6144),
    "qwen3_4b": _qwen3(36, 2560, 32, 9728),
    "qwen3_8b": _qwen3(36, 4096, 32, 12_288, tied=False),
    "mistral_7b": _newer(
        *(32, 4096, (32, 8), 14_336, 32_000),
        sliding_window=4096,
        tied_head=False,
        max_length=32_768,
    ),
    "olmo_2_1b": _olmo_2(16, 2048, 16, 8192),
    "olmo_2_7b": _olmo_2(32, 4096, 32, 11_008),
    "olmo_2_13b": _olmo_2(40, 5120, 40, 13_824),
    "phi_3_mini": _newer(
        *(32, 3072, (32, 32), 8192, 32_064),
        head_dim=96,
        sliding_window=2047,
        tied_head=False,
        max_length=4096,
    ),
    "phi_4": _newer(
        *(40, 5120, (40, 10), 17_920, 100_352),
        rope_base=250_000.0,
        tied_head=False,
        max_length=16_384,
    ),
    "gemma_2b": _gemma(18, 2048, (8, 1), 16_384),
    "gemma_7b": _gemma(28, 3072, (16, 16), 24_576),
    "gemma_2_2b": _gemma_2(26, 2304, (8, 4), 9216),
    "gemma_2_9b": _gemma_2(42, 3584, (16, 8), 14_336),
    "gemma_2_27b": _gemma_2(46, 4608, (32, 16), 36_864, 128, 144.0),
    "gemma_3_1b": _gemma_3(26, 1152, (4, 1), 6912, small=True),
    "gemma_3_4b": _gemma_3(34, 2560, (8, 4), 10_240),
    "gemma_3_12b": _gemma_3(48, 3840, (16, 8), 15_360),
    "gemma_3_27b": _gemma_3(62, 5376, (32, 16), 21_504, 128, 168.0),
}


def get(name: str) -> LanguageModelConfig:
    """The language model of this name; ValueError with the names there are."""
    if name not in LANGUAGE_MODELS:
        raise ValueError(f"language model {name!r}: use one of {sorted(LANGUAGE_MODELS)}")
    return LANGUAGE_MODELS[name]
