"""Round trips, special ids that text cannot forge, and ids equal to transformers'."""

import json
import pickle

import pytest
import sentencepiece

from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.files import gguf_file
from tests import parts, sentencepiece_model
from tests.torch_reference import import_torch

_TEXTS = [
    "",
    "A picture of a flamingo.",
    "  two  spaces,\ttabs\r\nand lines\n\n",
    "日本語 中文 한국어 العربية",
    "🦩 👩‍👩‍👧 🇩🇪 naïve café ﬁ",
    "<|endoftext|> <image> <EOC> </s> <bos>",
]


def _gguf_fields() -> dict:
    """A hand-made vocabulary: bytes of a few letters, two merges, two control tokens."""
    tokens = ["<|endoftext|>", "<|im_end|>", *"abc<|>endoftx", "Ġ", "1", "2", "ab", "Ġab"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": ["a b", "Ġ ab"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 1,
    }


def train_sentencepiece(path) -> None:
    """A file of a model that was trained on a few lines."""
    lines = [f"a picture of {name} number {i}" for i, name in enumerate(["flamingo", "cat"] * 20)]
    path.write_bytes(sentencepiece_model.train(lines, 300))


def test_byte_level_ids_are_the_bytes():
    tokenizer = Tokenizer.byte_level()
    every = bytes(range(256)).decode("latin-1")
    assert tokenizer.encode(every) == list(every.encode())
    assert tokenizer.encode("é\n🦩") == list("é\n🦩".encode())
    assert tokenizer.decode([0xF0, 0x9F]) == "\ufffd"  # half a character
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (256, 257, 258)


@pytest.mark.parametrize("text", _TEXTS)
def test_byte_level_round_trip_and_no_forged_special(text):
    tokenizer = Tokenizer.byte_level()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < 256


def test_new_rows_stand_behind_the_frozen_ones():
    tokenizer = Tokenizer.byte_level()
    size = tokenizer.base_vocab_size
    assert (tokenizer.image_id, tokenizer.end_of_chunk_id) == (size, size + 1)
    assert tokenizer.vocab_size == size + 2


def test_new_tokens_of_another_model_keep_its_order(tmp_path):
    first = Tokenizer.byte_level().with_conventions(
        ("<EOC>", "<image>", "<PAD>"), starts_with_bos=False
    )
    first.to_file(tmp_path)
    for t in (first, Tokenizer.from_file(tmp_path), pickle.loads(pickle.dumps(first))):
        assert (t.end_of_chunk_id, t.image_id, t.vocab_size) == (259, 260, 262)
        assert t.token_text(261) == "<PAD>"
        assert t.decode([259, 97, 261]) == "a"
        assert t.never_written == {260, 261, t.pad_id}
        assert t.prefix == []
        t.check_rows(259, 3)
        with pytest.raises(ValueError, match="259 ids and 3 new ones, the model rows for 259 and"):
            t.check_rows(259, 2)


def test_without_a_token_for_it_a_chunk_ends_with_eos():
    t = Tokenizer.byte_level().with_conventions(("<around>", "<image>"), starts_with_bos=True)
    assert (t.image_id, t.end_of_chunk_id) == (260, t.eos_id)
    assert t.never_written == {259, 260, t.pad_id}
    assert t.prefix == [t.bos_id]


@pytest.mark.parametrize("names", [("<EOC>",), ("<image>", "<image>")])
def test_new_tokens_without_one_image_are_refused(names):
    with pytest.raises(ValueError, match=r"want <image> once"):
        Tokenizer.byte_level().with_conventions(names, starts_with_bos=True)


def test_usual_conventions_leave_no_trace_in_the_file(tmp_path):
    Tokenizer.byte_level().to_file(tmp_path)
    saved = json.loads((tmp_path / "special_tokens.json").read_text())
    assert {*saved} == {"base_vocab_size", "bos_id", "eos_id", "pad_id", "control_tokens"}


def test_special_ids_stand_for_no_text_and_strange_ids_are_refused():
    tokenizer = Tokenizer.byte_level()
    ids = [tokenizer.bos_id, tokenizer.image_id, *b"cat", tokenizer.end_of_chunk_id]
    assert tokenizer.decode([*ids, tokenizer.eos_id, tokenizer.pad_id]) == "cat"
    assert [tokenizer.token_text(i) for i in ids] == ["<bos>", "<image>", *"cat", "<EOC>"]
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            tokenizer.decode([bad])


def test_gguf_merges_digits_and_document_separator():
    fields = _gguf_fields()
    tokenizer = Tokenizer.from_gguf(fields)
    tokens = fields["tokenizer.ggml.tokens"]
    assert [tokens[i] for i in tokenizer.encode("ab cab")] == ["ab", "Ġ", "c", "ab"]
    assert [tokens[i] for i in tokenizer.encode("ab ab12")] == ["ab", "Ġab", "1", "2"]
    # Base models part documents with <|endoftext|>, whatever the file's chat template uses.
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 1)
    assert tokenizer.base_vocab_size == len(tokens)
    forged = tokenizer.encode("<|endoftext|>")
    assert 0 not in forged
    assert tokenizer.decode(forged) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "lack tokenizer.ggml.scores"),
        ({"tokenizer.ggml.model": "bert"}, "cannot be read by itself"),
        ({"tokenizer.ggml.tokens": None}, "lack"),
        ({"tokenizer.ggml.merges": []}, "lack"),
        ({"tokenizer.ggml.merges": ["a z"]}, "do not make a tokenizer"),
        ({"tokenizer.ggml.merges": ["ab"]}, "do not make a tokenizer"),
        ({"tokenizer.ggml.token_type": [1]}, "1 token types for 20"),
        ({"tokenizer.ggml.padding_token_id": 999}, "pad_id=999"),
    ],
)
def test_gguf_metadata_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message) as raised:
        Tokenizer.from_gguf(_gguf_fields() | change)
    assert "\n" not in str(raised.value)


def _make(kind: str, folder) -> Tokenizer:
    if kind == "sentencepiece":
        train_sentencepiece(folder / "trained.model")
        return Tokenizer.from_sentencepiece(folder / "trained.model")
    return Tokenizer.byte_level() if kind == "bytes" else Tokenizer.from_gguf(_gguf_fields())


@pytest.mark.parametrize("kind", ["bytes", "gguf", "sentencepiece"])
def test_file_and_pickle_round_trips(kind, tmp_path):
    first = _make(kind, tmp_path)
    first.to_file(tmp_path / "saved")
    text = "ab cab12 <|endoftext|>" if kind == "gguf" else "a picture of 12 🦩 </s>"
    for again in (Tokenizer.from_file(tmp_path / "saved"), pickle.loads(pickle.dumps(first))):
        for name in ("bos_id", "eos_id", "pad_id", "image_id", "end_of_chunk_id", "vocab_size"):
            assert getattr(again, name) == getattr(first, name)
        assert again.encode(text) == first.encode(text)
        assert again.decode(again.encode(text)) == first.decode(first.encode(text))
        assert again.token_text(first.bos_id) == first.token_text(first.bos_id)


def test_sentencepiece_specials(tmp_path):
    tokenizer = _make("sentencepiece", tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)  # it has no pad
    ids = tokenizer.encode("a picture </s> <s>")
    assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids)
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.image_id]) == "a picture </s> <s>"


@pytest.mark.parametrize("kind", ["bytes", "gguf", "sentencepiece"])
def test_text_behind_other_text_is_split_as_it_is_there(kind, tmp_path):
    """Sentencepiece gives a space to what begins a text, and nothing to what goes on with one."""
    tokenizer = _make(kind, tmp_path)
    for before, text in (("ab", " ab"), ("a picture", " of a flamingo"), ("a:", "a"), ("", "ab")):
        whole = tokenizer.encode(before + text)
        assert tokenizer.encode(before) + tokenizer.encode_behind(before, text) == whole
    if kind == "sentencepiece":
        assert tokenizer.encode_behind("a picture", " of") == tokenizer.encode("of")
    if kind == "gguf":  # "ab" is one token, which "a" does not begin with
        assert tokenizer.encode_behind("a", "b") == tokenizer.encode("b")


def test_rows_behind_the_pieces_of_sentencepiece_stand_for_no_text(tmp_path):
    """As of models whose embedding is filled up to a round number."""
    train_sentencepiece(tmp_path / "trained.model")
    tokenizer = Tokenizer.from_sentencepiece(tmp_path / "trained.model", 512)
    ids = tokenizer.encode("a picture")
    assert tokenizer.decode([*ids, 511]) == "a picture"
    assert tokenizer.token_text(511) == ""


def _huggingface(folder, added: list[tuple[int, str, bool]]):
    """A folder of transformers: bytes of a to c, < and >, and added tokens (id, text, special)."""
    vocabulary = {letter: i for i, letter in enumerate("abc<>")}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = [{"id": i, "content": text, "special": special} | flags for i, text, special in added]
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    values = {"version": "1.0", "added_tokens": tokens, "model": model}
    values["decoder"] = {"type": "Fuse"}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    names = {"bos_token": "<b>", "eos_token": {"content": "<c>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


_SPECIAL = [(5, "<b>", True), (6, "<c>", True)]


def test_ordinary_added_tokens_keep_their_ids_behind_special_ones(tmp_path):
    first = Tokenizer.from_huggingface(_huggingface(tmp_path, [*_SPECIAL, (7, "日本", False)]))
    first.to_file(tmp_path / "saved")
    saved, pickled = Tokenizer.from_file(tmp_path / "saved"), pickle.loads(pickle.dumps(first))
    for tokenizer in (first, saved, pickled):
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.image_id) == (5, 6, 8)
        assert tokenizer.encode("a日本<b><c>") == [0, 7, 3, 1, 4, 3, 2, 4]  # text forges none
        assert tokenizer.decode([5, 0, 7, 3, 1, 4, 6]) == "a日本<b>"
        assert [tokenizer.token_text(i) for i in (5, 7)] == ["<b>", "日本"]


def test_what_a_folder_says_of_lengths_cuts_and_fills_no_text(tmp_path):
    """transformers saves with a tokenizer how it was last called, such as for sentences of two."""
    file = _huggingface(tmp_path, _SPECIAL) / "tokenizer.json"
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    filled = {"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": None}
    filled |= {"pad_id": 6, "pad_type_id": 0, "pad_token": "<c>"}
    lengths = {"truncation": cut, "padding": filled}
    file.write_text(json.dumps(json.loads(file.read_text()) | lengths))
    first = Tokenizer.from_huggingface(tmp_path)
    first.to_file(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_text(file.read_text())  # as one saved before has
    for tokenizer in (first, Tokenizer.from_file(tmp_path / "saved")):
        assert [tokenizer.encode(text) for text in ("a", "abcab")] == [[0], [0, 1, 2, 0, 1]]


def _opt(folder):
    """A folder as OPT's are: GPT-2's two files in place of `tokenizer.json`."""
    letters = ["<s>", "<pad>", "</s>", "<unk>", *"abc<>/s", "Ġ", "ab", "Ġab", "madeupword0000"]
    (folder / "vocab.json").write_text(json.dumps({text: i for i, text in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n", "utf-8")
    named = {f"{name}_token": {"content": "</s>"} for name in ("bos", "eos", "unk")}
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    named["pad_token"] = "<pad>"
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    return folder


def test_a_folder_with_the_two_files_of_gpt2(tmp_path):
    first = Tokenizer.from_huggingface(_opt(tmp_path), 16)
    first.to_file(tmp_path / "saved")
    for tokenizer in (first, Tokenizer.from_file(tmp_path / "saved")):
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (2, 2, 1)
        assert (tokenizer.base_vocab_size, tokenizer.image_id) == (16, 16)
        assert tokenizer.encode("ab abc</s>") == [12, 13, 6, 7, 9, 10, 8]  # text forges none
        assert tokenizer.decode([2, 12, 13, 6, 2, 1]) == "ab abc"
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "Qwen2Tokenizer"})  # which splits texts otherwise
    )
    with pytest.raises(ValueError, match=r"vocab.json is of Qwen2Tokenizer: fetch tokenizer.json"):
        Tokenizer.from_huggingface(tmp_path)


@pytest.mark.parametrize("added", [(9, "日本", False), (7, "c", False)])
def test_added_tokens_whose_ids_cannot_be_kept_are_refused(added, tmp_path):
    message = rf"json: added token '{added[1]}' has id {added[0]}, `tokenizers` gives it \d: number"
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_huggingface(_huggingface(tmp_path, [*_SPECIAL, added]))


def test_ids_that_would_mean_image_are_refused(tmp_path):
    folder = _huggingface(tmp_path, [*_SPECIAL, (7, "日本", False)])
    assert Tokenizer.from_huggingface(folder, 8).image_id == 8
    assert Tokenizer.from_huggingface(folder, 16).image_id == 16
    with pytest.raises(ValueError, match=r"json: ids go up to 7, .* has 7 rows, .* <image>"):
        Tokenizer.from_huggingface(folder, 7)
    (folder / "tokenizer.json").unlink()
    train_sentencepiece(tmp_path / "tokenizer.model")
    size = Tokenizer.from_huggingface(folder).base_vocab_size
    with pytest.raises(ValueError, match=rf"tokenizer\.model: ids go up to {size - 1}, "):
        Tokenizer.from_huggingface(folder, size - 1)


def test_a_special_token_without_a_row_is_left_out(tmp_path):
    folder = _huggingface(tmp_path, [*_SPECIAL, (7, "<s>", True)])
    tokenizer = Tokenizer.from_huggingface(folder, 7)
    assert (tokenizer.image_id, tokenizer.token_text(7)) == (7, "<image>")
    assert tokenizer.encode("<b>") == [3, 1, 4]
    with pytest.raises(ValueError, match="ids go up to 6, "):  # its eos, which is needed
        Tokenizer.from_huggingface(folder, 6)


@pytest.mark.parametrize(
    ("named", "bos", "eos"),
    [
        ({"bos_token": "<b>", "eos_token": "<c>"}, "<|endoftext|>", "<|endoftext|>"),  # a chat's
        ({"bos_token": "<b>", "eos_token": "<|endoftext|>"}, "<b>", "<|endoftext|>"),  # Phi-3's
        ({"bos_token": None, "eos_token": "<|endoftext|>"}, "<|endoftext|>", "<|endoftext|>"),
    ],
)
def test_documents_end_with_their_separator(tmp_path, named, bos, eos):
    folder = _huggingface(tmp_path, [*_SPECIAL, (7, "<|endoftext|>", True)])
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    tokenizer = Tokenizer.from_huggingface(folder)
    found = tokenizer.token_text(tokenizer.bos_id), tokenizer.token_text(tokenizer.eos_id)
    assert found == (bos, eos)


@pytest.mark.reference
def test_of_two_tokenizers_in_a_folder_the_one_that_transformers_reads(tmp_path):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    train_sentencepiece(tmp_path / "tokenizer.model")
    alone = Tokenizer.from_huggingface(tmp_path)
    file = str(tmp_path / "tokenizer.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=file)
    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    cuts = [(piece[:i], piece[i:]) for piece in vocabulary for i in range(1, len(piece))]
    merges = [pair for pair in cuts if {*pair} <= vocabulary.keys()]
    made = hf.LlamaTokenizer(vocabulary, merges)
    made.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    made.add_tokens(["flaming"])
    made.save_pretrained(tmp_path)
    assert {"tokenizer.json", "tokenizer.model"} <= {path.name for path in tmp_path.iterdir()}
    theirs, ours = hf.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_huggingface(tmp_path)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.base_vocab_size == len(theirs) == alone.base_vocab_size + 2
    for text in ("a picture of flamingo\nnumber é 12", "two  spaces", "flaming"):
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == text
    assert ours.encode("a picture of cat") == alone.encode("a picture of cat")
    (tmp_path / "tokenizer_config.json").unlink()  # then tokenizer.model knows what begins and ends
    unnamed = Tokenizer.from_huggingface(tmp_path)
    assert (unnamed.bos_id, unnamed.eos_id) == (alone.bos_id, alone.eos_id)


def test_folders_and_files_that_hold_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match=r"special_tokens\.json"):
        Tokenizer.from_file(tmp_path)
    Tokenizer.byte_level().to_file(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="no tokenizer can be read"):
        Tokenizer.from_file(tmp_path)
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a sentencepiece model"):
        Tokenizer.from_sentencepiece(tmp_path / "bad.model")


@pytest.mark.reference
def test_smollm2_ids_equal_transformers():
    import_torch()
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    file = parts.find(parts.SMOLLM2)
    tokenizer = Tokenizer.from_gguf(gguf_file.read(file).metadata)
    reference = transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    texts = [*_TEXTS[:-1], "In 2026, 3.14159 of 1,024 cats don't; I'm x**2\n    return 7\n"]
    texts += ["".join(map(chr, range(start, start + 300))) for start in range(0x370, 0x3000, 300)]
    for text in texts:
        want = reference(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.encode(text) == want, text[:40]
    assert tokenizer.decode(tokenizer.encode(texts[-1])) == texts[-1]
    assert (tokenizer.base_vocab_size, tokenizer.bos_id, tokenizer.pad_id) == (49_152, 0, 2)
    # The one difference: trained with digits split off first, which the reference leaves out.
    assert [tokenizer.token_text(i) for i in tokenizer.encode("\n\n1")] == ["\n\n", "1"]
