"""Training sequences against a slow reference that reads like the paper, and by hand."""

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import BadRecord
from data_pipelines.streams.sequences import (
    InterleavedText,
    answer_sequence,
    page_sequence,
    pair_sequence,
)
from flamingo_jax.tokenizer import Tokenizer
from tests.tokenizer_test import train_sentencepiece

BYTES = Tokenizer.byte_level()
BOS, EOS, PAD = BYTES.bos_id, BYTES.eos_id, BYTES.pad_id
IMAGE, EOC = BYTES.image_id, BYTES.end_of_chunk_id
IDS = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD, "image_id": IMAGE, "end_of_chunk_id": EOC}
IDS |= {"prefix": [BOS], "chunk_end": [EOC], "image_tag": lambda before: [IMAGE]}


def words_tokenizer():
    """One token a word, the space before it included, as byte-pair tokenizers do."""
    known = {}

    def encode(text):
        pieces, piece = [], ""
        for letter in text:
            if letter == " " and piece:
                pieces.append(piece)
                piece = ""
            piece += letter
        return [known.setdefault(p, len(known)) for p in [*pieces, piece] if p]

    return types.SimpleNamespace(**IDS, encode=encode)


def document(*parts) -> InterleavedText:
    """`document("text", 1, "text")`: a number is that many media."""
    text, positions = b"", []
    for part in parts:
        if isinstance(part, int):
            positions += [len(text)] * part
        else:
            text += part.encode()
    return InterleavedText(text, np.asarray(positions, np.int32))


def symbols(row) -> str:
    names = {BOS: "<", EOS: ">", PAD: ".", IMAGE: "#", EOC: "|"}
    return "".join(names.get(t) or chr(t) for t in row.tokens.tolist())


def marks(mask) -> str:
    return "".join("1" if m else "0" for m in mask)


def digits(index) -> str:
    return "".join(map(str, index.tolist()))


def page(doc, *, num_tokens=24, max_media=5, p_next=0.0, random_window=False, seed=0):
    rng = np.random.default_rng(seed)
    return page_sequence(
        doc,
        BYTES,
        rng,
        num_tokens=num_tokens,
        max_media=max_media,
        p_next=p_next,
        random_window=random_window,
    )


def test_the_papers_example():
    pets = document("pets!", 1, "dog", 1, "cat")
    row = page(pets)
    assert symbols(row) == "<pets!|#dog|#cat|>......"
    assert digits(row.media_index) == "000000011111222222000000"
    assert marks(row.loss_mask) == "011111101111011111000000"
    assert marks(row.token_mask) == "111111111111111111000000"
    assert row.kept_media.tolist() == [0, 1]
    following = page(pets, p_next=1.0)
    assert symbols(following) == symbols(row)
    assert digits(following.media_index) == "111111122222000000000000"


def test_page_that_begins_and_ends_with_an_image():
    row = page(document(1, "dog", 2), num_tokens=12)
    assert symbols(row) == "<#dog|#|#|>."
    assert digits(row.media_index) == "011111223330"
    assert digits(page(document(1, "dog", 2), num_tokens=12, p_next=1.0).media_index) == (
        "122222330000"
    )


def test_images_beyond_the_limit_go_with_their_tags_and_their_text_stays():
    row = page(document("a", 1, "b", 1, "c", 1, "d"), max_media=1, num_tokens=13)
    assert symbols(row) == "<a|#bcd|>...."
    assert digits(row.media_index) == "0001111110000"
    assert row.kept_media.tolist() == [0]


def test_evaluation_starts_where_the_first_image_is_reached():
    assert symbols(page(document("abc", 1, "d"), num_tokens=6)) == "<abc|#"
    assert symbols(page(document("abcdefgh", 1, "xyzuvw"), num_tokens=6)) == "#xyzuv"
    assert symbols(page(document("abcdefgh", 1, "x"), num_tokens=6)) == "h|#x|>"


def reference_rows(doc, num_tokens, max_media, following):
    """Every row a page may become, one a window, by the words of the paper."""
    raw, positions = doc.text, doc.media_positions.tolist()
    line = [("bos", BOS)]
    for offset in range(len(raw) + 1):
        for number, position in enumerate(positions):
            if position == offset:
                if line != [("bos", BOS)]:
                    line.append(("eoc", EOC))
                line.append(("image", number))
        if offset < len(raw):
            line.append(("text", raw[offset]))
    line += [("eoc", EOC), ("eos", EOS)]
    for start in range(max(1, len(line) - num_tokens + 1)):
        window = line[start : start + num_tokens]
        kept = [value for kind, value in window if kind == "image"][:max_media]
        if not kept:
            continue
        short = []
        for kind, value in window:
            if kind == "image" and value not in kept:
                assert short.pop()[0] == "eoc"
            else:
                short.append((kind, value))
        tokens = [IMAGE if kind == "image" else value for kind, value in short]
        phi = []
        for place in range(len(short)):
            seen = [i for i, (kind, _) in enumerate(short) if kind == "image" and i <= place]
            ahead = [i for i, (kind, _) in enumerate(short) if kind == "image" and i > place]
            if following:
                phi.append(len(seen) + 1 if ahead else 0)
            else:
                phi.append(len(seen))
        loss = [kind in ("text", "eoc", "eos") for kind, _ in short]
        loss[0] = False
        pad = num_tokens - len(short)
        yield (
            tokens + [PAD] * pad,
            [True] * len(short) + [False] * pad,
            loss + [False] * pad,
            phi + [0] * pad,
            kept,
        )


def as_lists(row):
    return tuple(
        getattr(row, name).tolist()
        for name in ("tokens", "token_mask", "loss_mask", "media_index", "kept_media")
    )


pages = st.lists(st.one_of(st.text("abc ", max_size=6), st.integers(1, 3)), min_size=1).filter(
    lambda parts: any(isinstance(part, int) for part in parts)
)


@given(
    parts=pages,
    num_tokens=st.integers(1, 30),
    max_media=st.integers(1, 4),
    following=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_window_is_one_of_the_references(parts, num_tokens, max_media, following, seed):
    doc = document(*parts)
    row = page(
        doc,
        num_tokens=num_tokens,
        max_media=max_media,
        p_next=float(following),
        random_window=True,
        seed=seed,
    )
    wanted = list(reference_rows(doc, num_tokens, max_media, following))
    assert as_lists(row) in wanted
    beginning = page(doc, num_tokens=num_tokens, max_media=max_media, p_next=float(following))
    assert as_lists(beginning) in wanted


def test_windows_are_uniform_and_p_next_is_drawn_once_a_page():
    doc = document("abcdefgh", 1, "ijklmnop", 1, "qrstuvwxyz")
    windows = {
        tuple(row): (number, following)
        for following in (False, True)
        for number, row in enumerate(
            map(lambda r: map(tuple, r), reference_rows(doc, 12, 5, following))
        )
    }
    counts = np.zeros((len(windows) // 2, 2), int)
    for seed in range(4000):
        row = page(doc, num_tokens=12, p_next=0.25, random_window=True, seed=seed)
        number, following = windows[tuple(map(tuple, as_lists(row)))]
        counts[number, int(following)] += 1
    expected = 4000 / len(counts)
    assert abs(counts.sum(1) - expected).max() < 5 * np.sqrt(expected)
    assert abs(counts.sum(0)[1] / 4000 - 0.25) < 0.035


@given(
    text=st.text(min_size=1, max_size=20).filter(str.strip),
    num_tokens=st.integers(1, 40),
    space=st.booleans(),
)
def test_pairs(text, num_tokens, space):
    row = pair_sequence(
        document(1, text),
        BYTES,
        np.random.default_rng(0),
        num_tokens=num_tokens,
        prepend_space=float(space),
    )
    whole = [BOS, IMAGE, *(" " * space + text).encode(), EOC, EOS][:num_tokens]
    pad = num_tokens - len(whole)
    assert as_lists(row) == (
        whole + [PAD] * pad,
        [True] * len(whole) + [False] * pad,
        ([False, False] + [True] * (len(whole) - 2) + [False] * pad)[:num_tokens],
        [0] + [1] * (len(whole) - 1) + [0] * pad,
        [0],
    )


def test_template_words_may_stay_out_of_the_loss():
    tokenizer = words_tokenizer()
    for score, space in [(True, 0.0), (False, 0.0), (False, 1.0)]:
        row = pair_sequence(
            document(1, "red panda"),
            tokenizer,
            np.random.default_rng(0),
            num_tokens=9,
            prepend_space=space,
            template="A picture of {}.",
            score_template=score,
        )
        text = " " * int(space) + "A picture of red panda."
        words = tokenizer.encode(text)
        assert row.tokens.tolist() == [BOS, IMAGE, *words, EOC, EOS]
        assert marks(row.loss_mask) == ("001111111" if score else "000001111")


def test_braces_in_a_caption_are_letters():
    row = pair_sequence(
        document(1, "{0} {}"), BYTES, np.random.default_rng(0), num_tokens=12, prepend_space=0.0
    )
    assert symbols(row) == "<#{0} {}|>.."


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        (document("text only"), "no_media"),
        (InterleavedText(b"abc", np.array([2, 1])), "bad_positions"),
        (InterleavedText(b"abc", np.array([4])), "bad_positions"),
        (InterleavedText(b"abc", np.array([-1])), "bad_positions"),
        (InterleavedText(b"ab\xff", np.array([0])), "not_utf8"),
        (InterleavedText("é".encode(), np.array([1])), "not_utf8"),
    ],
)
def test_bad_pages_name_their_reason(doc, reason):
    with pytest.raises(BadRecord) as error:
        page(doc)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        (document("text only"), "not_a_pair"),
        (document(2, "two"), "not_a_pair"),
        (document(1, "  \n"), "no_text"),
        (InterleavedText(b"ab\xff", np.array([0])), "not_utf8"),
    ],
)
def test_bad_pairs_name_their_reason(doc, reason):
    with pytest.raises(BadRecord) as error:
        pair_sequence(doc, BYTES, np.random.default_rng(0), num_tokens=8)
    assert error.value.reason == reason


def test_an_answer_is_split_as_candidates_are_behind_their_prompt(tmp_path):
    """With LLaMA's kind of tokenizer too, which puts a space before every text."""
    train_sentencepiece(tmp_path / "trained.model")
    tokenizer = Tokenizer.from_sentencepiece(tmp_path / "trained.model")
    row = answer_sequence(document(1, "a picture of"), 9, tokenizer, num_tokens=16)
    answer = [*tokenizer.encode_behind("a picture", " of"), tokenizer.end_of_chunk_id]
    assert row.tokens[row.loss_mask].tolist() == answer


def test_of_a_question_the_answer_and_its_end_alone_are_learnt():
    question = document(1, "how many? 2")
    row = answer_sequence(question, 9, BYTES, num_tokens=16)
    assert symbols(row) == "<#how many? 2|.."
    assert marks(row.loss_mask) == "0000000000011100"
    assert digits(row.media_index) == "0111111111111100"
    assert symbols(answer_sequence(document(1, "cat"), 0, BYTES, num_tokens=6)) == "<#cat|"
    for doc, start, reason in (
        (document("text only"), 0, "not_a_pair"),
        (question, 11, "bad_answer_start"),
        (question, -1, "bad_answer_start"),
        (document(1, "x" * 20), 18, "too_long"),
        (document(1, "Ü?"), 1, "not_utf8"),
    ):
        with pytest.raises(BadRecord) as error:
            answer_sequence(doc, start, BYTES, num_tokens=16)
        assert error.value.reason == reason


def test_without_bos_the_picture_comes_first():
    """As OpenFlamingo was trained; what is scored and what each token sees stay the same."""
    bare = BYTES.with_conventions(("<image>", "<EOC>"), starts_with_bos=False)
    rng = np.random.default_rng(0)
    row = pair_sequence(document(1, "cat"), bare, rng, num_tokens=8, prepend_space=0.0)
    assert symbols(row) == "#cat|>.."
    assert marks(row.loss_mask) == "01111100"
    assert digits(row.media_index) == "11111100"
    options = {"num_tokens": 12, "max_media": 2, "p_next": 0.0, "random_window": False}
    row = page_sequence(document(1, "a", 1, "b"), bare, rng, **options)
    assert symbols(row) == "#a|#b|>....."
    assert digits(row.media_index) == "111222200000"
    assert marks(row.loss_mask) == "011011100000"


def test_an_image_in_tokens_of_its_own_as_idefics_was_trained():
    """No `<EOC>`; a tag of three is dropped, and left out of the loss, as a whole."""
    idefics = BYTES.with_conventions(("<fake_token_around_image>", "<image>"), starts_with_bos=True)
    rng = np.random.default_rng(0)
    names = {BOS: "<", EOS: ">", PAD: ".", 259: "'", 260: "#"}

    def read(row):
        return "".join(names.get(t) or chr(t) for t in row.tokens.tolist())

    row = pair_sequence(document(1, "cat"), idefics, rng, num_tokens=10, prepend_space=0.0)
    assert read(row) == "<'#'cat>.."
    assert marks(row.loss_mask) == "0000111100"
    assert digits(row.media_index) == "0011111100"
    options = {"num_tokens": 18, "p_next": 0.0, "random_window": False}
    pets = document("a", 1, "b", 2, "c", 1, "d")
    row = page_sequence(pets, idefics, rng, max_media=4, **options)
    assert read(row) == "<a'#'b'#'#'c'#'d>."
    assert digits(row.media_index) == "000111122333344440"
    assert marks(row.loss_mask) == "010001000001000110"
    row = answer_sequence(document(1, "q a"), 1, idefics, num_tokens=8)
    assert (read(row), marks(row.loss_mask)) == ("<'#'q a>", "00000111")
    row = page_sequence(pets, idefics, rng, max_media=2, **options)
    assert read(row) == "<a'#'b'#'cd>......"
    assert row.kept_media.tolist() == [0, 1]
