"""NExT-QA's score: pairs that its official scorer was run on, and its rules by type."""

import pickle
import sys

import pytest

from data_pipelines.packages import PACKAGES
from flamingo_jax.cache import CACHE_VARIABLE, cache_dir
from flamingo_jax.eval import nextqa_scorer
from flamingo_jax.eval.nextqa_scorer import Scorer
from tests.eval import tiny_wordnet

# Answers made up, and what doc-doc/NExT-OE's eval_oe.py gives them with NLTK 3.3, pywsd 1.2.4,
# WordNet 3.0 and NLTK's tagger, to six digits.
OFFICIAL = [
    ("the dogs are running", "a dog runs", 1.0),
    ("to feed the babies", "feeding a baby", 0.125),
    ("he is happy", "smile", 0.0),
    ("two children playing", "kids play", 0.266667),
    ("red car", "blue bicycle", 0.636364),
    ("pick it up", "picked up the ball", 0.117647),
    ("nothing", "something", 0.0),
    ("it is because of that", "these are those", 0.0),
    ("", "walk", 0.0),
    ("Men climbing mountains.", "the man climbed a hill", 0.128205),
    ("don't know", "unknown", 0.142857),
    ("throws the ball to the boy", "kick ball", 0.246914),
    ("the boy's hands", "hands of boys", 1.0),
    ("oxen and geese", "goose", 0.5625),
    ("dog", "run", 0.1),
    ("run", "dog", 0.1),
    ("zxqv", "zxqv", 1.0),
    ("zxqv", "dog", 0.0),
    ("sitting on the sofa", "sit on couch", 1.0),
    ("to cool down", "clap hands", 0.066667),
    ("wearing glasses", "wore a pair of sunglasses", 0.016667),
    ("leaves", "leaf", 1.0),
    ("swimming in the pool", "swim", 0.027682),
]


class Words:
    """In the place of a lemmatizer: texts are in dictionary forms already."""

    def lemmas(self, text: str) -> list[str]:
        return text.split()

    tokens = lemmas


SCORER = Scorer(Words(), tiny_wordnet.tiny())


def test_of_two_right_answers_the_nearer_one_counts():
    near = SCORER.score("dog", ["cat"], "DO")
    assert 0 < near < 1
    assert SCORER.score("dog", ["ox", "the dog"], "DO") == 1
    assert SCORER.score("dog", ["zzz", "cat"], "CW") == near


@pytest.mark.parametrize("kind", ["DB", "DC"])
def test_yes_and_no_and_numbers_are_right_or_wrong(kind):
    assert SCORER.score("the dog", ["dog"], kind) == 1
    assert SCORER.score("cat", ["dog"], kind) == 0
    assert SCORER.score("dog", ["cat", "dog"], kind) == 1
    assert SCORER.score("", ["dog"], kind) == 0


def test_words_that_say_little_are_the_official_156():
    words = nextqa_scorer.STOP_WORDS
    assert len(words) == 156
    assert {"the", "she", "isn't", "into", "own"} <= words
    assert not {"no", "not", "in", "on", "up", "before", "after", "both", "us"} & words


def test_the_packages_are_those_that_are_fetched():
    folders = [PACKAGES[name].folder for name in nextqa_scorer.PACKAGES]
    assert folders == list(nextqa_scorer.FOLDERS)


def test_yes_and_no_are_compared_as_they_are_written():
    """The official scorer splits texts into words once more for WUPS alone."""

    class Split(Words):
        def tokens(self, text: str) -> list[str]:
            return text.replace("cannot", "can not").split()

    scorer = Scorer(Split(), tiny_wordnet.tiny())
    assert scorer.score("cannot run", ["not run"], "DB") == 0
    assert scorer.score("not run", ["not run"], "DB") == 1
    assert scorer.score("cannot dog", ["can not dog"], "CW") == 1


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"WordNet cannot be read .*data_pipelines\.fetch wndb"):
        nextqa_scorer.load.__wrapped__()
    tiny_wordnet.write_package(tmp_path / nextqa_scorer.FOLDERS[0])
    with pytest.raises(ValueError, match=r"pickle: cannot be read .*: python -m data_pip"):
        nextqa_scorer.load.__wrapped__()


def test_nltk_is_named_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    tiny_wordnet.write_package(tmp_path / nextqa_scorer.FOLDERS[0])
    tagger = tmp_path / nextqa_scorer.FOLDERS[1] / "textblob_aptagger" / "trontagger-0.1.0.pickle"
    tagger.parent.mkdir(parents=True)
    tagger.write_bytes(pickle.dumps(({}, {}, {"NN"}), protocol=2))
    monkeypatch.setitem(sys.modules, "nltk.stem", None)
    with pytest.raises(ValueError, match=r"NLTK, which is not installed: .* -e '\.\[evaluate\]'"):
        nextqa_scorer.load.__wrapped__()


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    pytest.importorskip("nltk", reason="nltk is not installed")
    if not all((cache_dir() / folder).is_dir() for folder in nextqa_scorer.FOLDERS):
        pytest.skip("WordNet or the tagger is not in the cache folder: data_pipelines.fetch")
    return nextqa_scorer.load()


@pytest.mark.reference
@pytest.mark.parametrize(("written", "right", "score"), OFFICIAL)
def test_scores_are_the_official_ones(scorer, written, right, score):
    assert scorer.score(written, [right], "CW") == pytest.approx(score, abs=1e-6)


@pytest.mark.reference
def test_sentences_end_at_full_stops(scorer):
    assert scorer.score("He ran. The cat slept.", ["run . cat sleep ."], "CW") == 1
