"""Tokenizers out of GGUF metadata against the libraries that they come from."""

import json
import pickle

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from flamingo_jax import gguf_vocabulary
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.tokenizer_models import byte_characters
from flamingo_jax.weights.files import gguf_file
from tests import sentencepiece_model
from tests.language_model_folder import write_tokenizer
from tests.torch_reference import import_torch

LINES = [
    f"A picture of the {a} number {n},\n\n it's  {n}{n} café's 🦩!"
    for a in ("flamingo", "cat")
    for n in range(20)
]
TEXTS = [
    "",
    " ",
    "A picture of a flamingo.",
    "  two  spaces,   three,\ttabs\r\nand lines\n\n\nmore \n",
    "日本語 中文 한국어 العربية हिन्दी",
    "🦩 👩‍👩‍👧 🇩🇪 naïve CAFÉ façade ﬁ ǅ",
    "1 12 123 1234567 3.14 x1y22z",
    "It's WE'LL don't I'm 'RE they'd'",
    "snake_case CamelCase HTTPServer a/b\\c {x: [1]} != // \n/",
    "<|endoftext|> <s> </s> <unk> <0x41> [PAD300] <call>x</call>",
]


def trained(**options) -> sentencepiece.SentencePieceProcessor:
    model = sentencepiece_model.train(LINES, 420, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def llama_fields(pieces: sentencepiece.SentencePieceProcessor, **settings) -> dict:
    """As converters write them: two rows more than pieces, spaces of added tokens unescaped."""
    kinds, tokens = [], []
    for i in range(pieces.get_piece_size()):
        token = pieces.id_to_piece(i)
        known = token in ("▁▁", "▁▁▁", "<call>")
        kinds.append(4 if known else 2 if pieces.is_unknown(i) else 1)
        kinds[-1] = 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else kinds[-1]
        tokens.append(token.replace("▁", " ") if known else token)
    scores = [pieces.get_score(i) for i in range(len(tokens))]
    values = {
        "model": "llama",
        "pre": "default",
        "tokens": [*tokens, "[PAD300]", "[PAD301]"],
        "scores": [*scores, -10_000.0, -10_000.0],
        "token_type": [*kinds, 5, 5],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    } | settings
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}


LLAMA = trained()
GEMMA = trained(add_dummy_prefix=False, user_defined_symbols=["▁▁", "▁▁▁", "<call>"])
SENTENCEPIECE = {
    "llama": (LLAMA, Tokenizer.from_gguf(llama_fields(LLAMA))),
    "gemma": (GEMMA, Tokenizer.from_gguf(llama_fields(GEMMA, add_space_prefix=False))),
}


@pytest.mark.parametrize("name", SENTENCEPIECE)
@settings(max_examples=150)
@given(text=st.sampled_from(TEXTS) | st.text("Aa picturefmnglo's  \n1é🦩漢<cl>▁", max_size=40))
def test_ids_and_texts_are_sentencepieces_own(name, text):
    pieces, tokenizer = SENTENCEPIECE[name]
    ids = pieces.encode(text)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == pieces.decode(ids)


def test_rows_and_special_ids_of_a_sentencepiece_vocabulary():
    tokenizer = SENTENCEPIECE["llama"][1]
    size = LLAMA.get_piece_size()
    assert (tokenizer.base_vocab_size, tokenizer.image_id) == (size + 2, size + 2)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    assert [tokenizer.token_text(i) for i in (1, 2, size)] == ["<s>", "</s>", "[PAD300]"]
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(TEXTS[3]) == tokenizer.encode(TEXTS[3])


def test_what_converters_leave_out_of_a_sentencepiece_vocabulary():
    """<unk> among the control tokens is found again; scores that are all alike are none."""
    fields = llama_fields(LLAMA)
    kinds = fields["tokenizer.ggml.token_type"]
    for change in ({}, {"tokenizer.ggml.unknown_token_id": None}):
        marked = {"tokenizer.ggml.token_type": [3, *kinds[1:]]} | change
        assert Tokenizer.from_gguf(fields | marked).encode(TEXTS[5]) == LLAMA.encode(TEXTS[5])
    for name, value, message in (
        (
            "scores",
            [-1000.0] * len(kinds),
            "'llama' .* cannot be read by itself, only 'llama' with",
        ),
        ("scores", [0.0, 1.0], "2 scores for "),
        ("tokens", ["a"] * len(kinds), "do not make a sentencepiece model"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            Tokenizer.from_gguf(fields | {f"tokenizer.ggml.{name}": value})
        assert "\n" not in str(raised.value)


def gpt2_fields(pre: str, **settings) -> dict:
    """A vocabulary that is trained on words as `pre` makes them, with an added token behind it."""
    words = gguf_vocabulary._PRE_TOKENIZERS[pre]
    trainee = tokenizers.Tokenizer(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.Sequence(list(words.before))
    trainee.train_from_iterator(
        [*LINES, *TEXTS[:-1]],
        trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=byte_characters(), show_progress=False
        ),
    )
    model = json.loads(trainee.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    values = {
        "model": "gpt2",
        "pre": pre,
        "tokens": [*tokens, "<|endoftext|>", "<call>", "    "],
        "token_type": [1] * len(tokens) + [3, 4, 4],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": len(tokens),
        "eos_token_id": len(tokens),
    } | settings
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}


def write(path, fields: dict, architecture: str):
    """A file of metadata alone."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in fields.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
            add[type(value)](name, value)
    writer.add_tensor("token_embd.weight", np.zeros((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf_file.read(path).metadata


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "architecture"), [("llama", "llama"), ("llama", "phi3"), ("gemma", "gemma2")]
)
def test_sentencepiece_equals_transformers(tmp_path, name, architecture):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    pieces, ours = SENTENCEPIECE[name]
    write(
        tmp_path / "lm.gguf", llama_fields(pieces, add_space_prefix=name == "llama"), architecture
    )
    theirs = hf.AutoTokenizer.from_pretrained(str(tmp_path), gguf_file="lm.gguf")
    for text in TEXTS[:-1]:  # tokens in the last are special to them
        if architecture == "llama" and text[:1] == " ":
            continue  # to which they add no other, where sentencepiece does
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text


@pytest.mark.reference
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "dbrx", "gpt-4o", "tekken"])
def test_byte_pairs_equal_transformers(tmp_path, pre):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    architecture = {"gpt-2": "gpt2", "qwen2": "qwen2"}.get(pre, "llama")
    fields = write(tmp_path / "lm.gguf", gpt2_fields(pre), architecture)
    ours = Tokenizer.from_gguf(fields)
    theirs = hf.AutoTokenizer.from_pretrained(str(tmp_path), gguf_file="lm.gguf")
    for text in TEXTS[:-1]:
        want = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == want, text
        assert ours.decode(want) == text
    call = ours.base_vocab_size - 2
    assert ours.encode("a<call>")[1:] == [call]
    assert call - 1 not in ours.encode("<|endoftext|>")


def test_words_that_are_taken_whole_and_letters_that_are_put_together():
    tokens = [*byte_characters(), "xyz", "<|endoftext|>", "xy", "c"]
    values = {"tokens": tokens, "token_type": [1] * 257 + [3, 1, 5], "merges": ["x y"]}
    whole, apart, qwen = (
        Tokenizer.from_gguf(gpt2_fields(pre, **values, bos_token_id=None, eos_token_id=None))
        for pre in ("llama-bpe", "dbrx", "qwen2")
    )
    assert whole.encode("xyz") == [256]  # to which no merges lead
    assert apart.encode("xyz") == [258, *apart.encode("z")]
    assert (whole.bos_id, whole.eos_id, whole.pad_id) == (257, 257, 257)
    assert qwen.encode("e\u0301") == qwen.encode("\u00e9") != apart.encode("e\u0301")
    with pytest.raises(ValueError, match="GGUF token 'a' has ids 97 and 258"):
        Tokenizer.from_gguf(gpt2_fields("dbrx", **values | {"tokens": [*tokens[:258], "a", "c"]}))


def test_a_kind_that_is_not_known_takes_the_tokenizer_beside_the_file(tmp_path):
    alphabet = sorted(byte_characters())
    tokens = [*alphabet, "<|endoftext|>", "[PAD257]"]
    values = {"tokens": tokens, "token_type": [1] * 256 + [3, 5], "merges": []}
    fields = gpt2_fields("gpt-2", **values) | {"tokenizer.ggml.pre": "viking"}
    message = r"'gpt2' \('viking'\) cannot be read by itself, .* put the model's tokenizer\.json"
    for folder in (None, tmp_path):
        with pytest.raises(ValueError, match=message) as raised:
            Tokenizer.from_gguf(fields, folder)
        assert "\n" not in str(raised.value)
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_gguf(fields, tmp_path)
    assert tokenizer.decode(tokenizer.encode(TEXTS[4])) == TEXTS[4]
    assert (tokenizer.base_vocab_size, tokenizer.bos_id) == (258, 256)
    swapped = [alphabet[1], alphabet[0], *tokens[2:]]
    with pytest.raises(
        ValueError, match=r"tokenizer\.json is of another model: token '\"' is 1 the"
    ):
        Tokenizer.from_gguf(fields | {"tokenizer.ggml.tokens": swapped}, tmp_path)
