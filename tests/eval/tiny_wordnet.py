"""A dictionary of a dozen meanings in the layout of WordNet's files, `wndb(5)`."""

import io
import pathlib
import tarfile
from collections import defaultdict

from flamingo_jax.eval.wordnet import PARTS, WordNet

_LICENCE = "  1 Use it as you like.  \n"
# Of each part: a meaning's words, and the first word of each wider one. Of a word with several
# meanings the first is the most usual.
MEANINGS = {
    "n": [
        ("entity", ()),
        ("thing", ("entity",)),
        ("animal", ("thing",)),
        ("pet", ("animal",)),
        ("dog domestic_dog", ("animal", "pet")),
        ("cat", ("animal",)),
        ("kitten", ("cat",)),
        ("ox", ("animal",)),
        ("walk", ("thing",)),
        ("Rex", ("dog",)),
    ],
    "v": [
        ("move", ()),
        ("walk", ("move",)),
        ("run", ("move",)),
        ("sleep", ()),
        ("free", ("move",)),
    ],
    "a": [("small little", ()), ("free", ())],
    "r": [("slowly", ())],
}
EXCEPTIONS = {"n": "oxen ox\ndice die\n", "v": "ran run\nfreer free\n", "a": "", "r": ""}


def files() -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    """index.*, data.* and *.exc by part, as WordNet takes them."""
    index, data = {}, {}
    for part, meanings in MEANINGS.items():
        place = {}
        for _ in range(2):  # offsets are of one length, so the first pass finds them
            text, senses = _LICENCE, defaultdict(list)
            for words, wider in meanings:
                own, offset = words.split(), len(text)
                place[own[0]] = offset
                fields = [f"{offset:08d}", "00", part, f"{len(own):02x}"]
                fields += [f"{word} 0" for word in own]
                fields += [f"{len(wider) + 1:03d}", f"~ 00000000 {part} 0000"]
                for name in wider:
                    symbol = "@i" if own[0] == "Rex" else "@"
                    fields.append(f"{symbol} {place.get(name, 0):08d} {part} 0000")
                text += " ".join(fields) + ' | what it means; "as it is said"\n'
                for word in own:
                    senses[word.lower()].append(offset)
        lines = [
            f"{word} {part} {len(own)} 2 @ ~ {len(own)} 0 {' '.join(f'{o:08d}' for o in own)}  \n"
            for word, own in sorted(senses.items())
        ]
        index[part], data[part] = (_LICENCE + "".join(lines)).encode(), text.encode()
    return index, data, {part: text.encode() for part, text in EXCEPTIONS.items()}


def tiny() -> WordNet:
    """It, read."""
    return WordNet(*files())


def write_package(folder: pathlib.Path) -> None:
    """It, as the npm package has the whole one."""
    index, data, exceptions = files()
    (folder / "package" / "data").mkdir(parents=True)
    with tarfile.open(folder / "package" / "WNdb-3.0.tar.gz", "w:gz") as archive:
        for kind, values in (("index", index), ("data", data)):
            for part, name in PARTS.items():
                member = tarfile.TarInfo(f"dict/{kind}.{name}")
                member.size = len(values[part])
                archive.addfile(member, io.BytesIO(values[part]))
    for part, name in PARTS.items():
        (folder / "package" / "data" / f"{name}.exc").write_bytes(exceptions[part])
