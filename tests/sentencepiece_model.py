"""A sentencepiece model of LLaMA's kind, trained on a few lines."""

import io
from collections.abc import Iterable
from typing import Any

import sentencepiece


def train(lines: Iterable[str], vocab_size: int, **options: Any) -> bytes:
    """Keeps spaces as they are and has bytes for what it has no piece for; the file's bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()
