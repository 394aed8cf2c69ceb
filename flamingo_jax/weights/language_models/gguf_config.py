"""The metadata of a GGUF file -> `LanguageModelConfig`, for the architectures of `gguf_names`."""

from typing import Any

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.gguf_file import GGUFFile
from flamingo_jax.weights.language_models import gguf_rope
from flamingo_jax.weights.language_models.gguf_settings import Settings

_HEAD = "output.weight"


def read(file: GGUFFile) -> LanguageModelConfig:
    """What the metadata say; BadWeightsFile for another architecture or a setting ours has not."""
    settings = Settings(file)
    own = settings.architecture.fields
    num_heads, width = settings.whole("attention.head_count"), settings.whole("embedding_length")
    head_dim = settings.whole("attention.key_length", width // num_heads)
    norm = "layer_norm" if own.get("norm") == "layernorm" else "layer_norm_rms"
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    num_tokens = len(tokens) if isinstance(tokens, list) else None
    found = {
        "vocab_size": settings.whole("vocab_size", num_tokens),
        "num_layers": settings.whole("block_count"),
        "width": width,
        "num_heads": num_heads,
        "head_dim": head_dim,
        "ffw_width": settings.whole("feed_forward_length"),
        "num_kv_heads": settings.whole("attention.head_count_kv", num_heads),
        "norm_eps": settings.positive(f"attention.{norm}_epsilon"),
        "attention_softcap": settings.optional("attn_logit_softcapping"),
        "logits_softcap": settings.optional("final_logit_softcapping"),
        # GPT-2's files mostly have the embedding a second time.
        "tied_head": _HEAD not in file or file.repeats(_HEAD, "token_embd.weight"),
        "max_length": settings.whole("context_length"),
    }
    if (layers := found["num_layers"]) > len(file.names()):
        raise BadWeightsFile(f"{file.path}: metadata name {layers} layers, more than its tensors")
    found |= _windows(settings, layers)
    if settings.architecture.scaled_by_width:
        by_width = layers == settings.architecture.scaled_by_width
        found["query_pre_attn_scalar"] = float(width / num_heads if by_width else head_dim)
    if own.get("positions", "rope") == "rope":
        found |= gguf_rope.fields(settings, head_dim)
    try:
        return LanguageModelConfig(**found, **own)
    except ValueError as error:
        raise BadWeightsFile(f"{file.path}: {error}") from error


def names_windows(file: GGUFFile) -> bool:
    """Whether it says how far a token sees; most converters pass over it."""
    return "attention.sliding_window" in Settings(file)


def _windows(settings: Settings, num_layers: int) -> dict[str, Any]:
    window = settings.optional("attention.sliding_window")
    if window is None:
        return {}
    every = settings.architecture.global_every
    if every is None:
        raise BadWeightsFile(
            f"{settings.file.path}: sliding windows of {settings.name!r} are not supported: use "
            "the model's folder of transformers (hf_lm)"
        )
    if every:
        every = settings.whole("attention.sliding_window_pattern", every)
    found = {
        "sliding_window": int(window),
        "global_layers": tuple(range(every - 1, num_layers, every)) if every else (),
    }
    if "rope.freq_base_swa" in settings:
        found["local_rope_base"] = float(settings.positive("rope.freq_base_swa"))
    return found
