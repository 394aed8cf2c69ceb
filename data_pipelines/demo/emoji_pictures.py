"""The pictures of each emoji by five artists with free licences.

Fluent 3D comes as 256 px WebP and is kept as it is; the others come as vector drawings and are
drawn here as PNG. Several artists' pictures of one concept are there to keep a small model from
learning pictures by heart: with one artist it overfits within 250 steps of 32 pictures.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Iterator

import resvg_py

from data_pipelines.demo.emoji_concepts import Emoji, normalized_code
from data_pipelines.fetch import fetch
from data_pipelines.packages import PACKAGES

# 3 to 5 ms and 5 KB a picture; 224 px would take twice the time, and encoders resize anyway.
_DRAWN_PX = 160
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'viewBox="0 0 {width} {height}">{body}</svg>'
)


@dataclasses.dataclass(frozen=True)
class Artist:
    """One set of pictures of all concepts."""

    key: str
    package: str  # a key of PACKAGES
    credit: str

    @property
    def licence(self) -> str:
        return PACKAGES[self.package].licence


FLUENT = Artist("fluent", "@lobehub/fluent-emoji-3d", "Fluent Emoji 3D by Microsoft")
ARTISTS = (
    FLUENT,
    Artist("fluent_flat", "@iconify-json/fluent-emoji-flat", "Fluent Emoji Flat by Microsoft"),
    Artist("noto", "@iconify-json/noto", "Noto Emoji by Google"),
    Artist("openmoji", "@iconify-json/openmoji", "OpenMoji by HfG Schwäbisch Gmünd"),
    Artist("twemoji", "@iconify-json/twemoji", "Twemoji by Twitter and contributors"),
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One artist's picture of one emoji."""

    emoji: Emoji
    artist: Artist
    data: bytes  # WebP or PNG

    @property
    def key(self) -> str:
        return f"{self.artist.key}/{self.emoji.code}"


def is_wanted(emoji: Emoji, artist: Artist) -> bool:
    """Fluent pictures of all emoji; of the other artists what is trained on, without the flags.

    Some 260 flags can hardly be told apart at 224 px, and testing on one artist's held-out
    pictures needs no others; so 2,300 of 9,000 pictures need not be drawn.
    """
    return artist is FLUENT or not (emoji.is_flag or emoji.held_out)


def draw_pictures(emoji: Collection[Emoji], tick: Callable[[], None]) -> Iterator[Picture]:
    """All wanted pictures that the artists have, by artist; `tick` is called after each emoji.

    Where an artist uses one file for several emoji (ten families, "farmer" and "man farmer"), the
    first in order has it and the others are left out.
    """
    for artist in ARTISTS:
        seen = set()
        folder = fetch(artist.package) / "package"
        read = _fluent_reader(folder) if artist is FLUENT else _vector_reader(folder)
        for one in emoji:
            data = read(one.code) if is_wanted(one, artist) else None
            if data is not None and data not in seen:
                seen.add(data)
                yield Picture(one, artist, data)
            tick()


def _fluent_reader(folder: pathlib.Path) -> Callable[[str], bytes | None]:
    paths = {normalized_code(path.stem): path for path in sorted(folder.glob("assets/*.webp"))}
    return lambda code: paths[code].read_bytes() if code in paths else None


def _vector_reader(folder: pathlib.Path) -> Callable[[str], bytes | None]:
    """Draws from an Iconify set: `icons.json` holds bodies by name, `chars.json` names by code."""
    icons = json.loads((folder / "icons.json").read_text("utf-8"))
    chars = json.loads((folder / "chars.json").read_text("utf-8"))
    size = {"width": icons["width"], "height": icons["height"]}
    # Of a code with and without variation selectors, the first in the file's order counts.
    names: dict[str, str] = {}
    for code, name in chars.items():
        if name in icons["icons"]:
            names.setdefault(normalized_code(code), name)

    def draw(code: str) -> bytes | None:
        if code not in names:
            return None
        svg = _SVG.format_map(size | icons["icons"][names[code]])
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=svg,
                width=_DRAWN_PX,
                height=_DRAWN_PX,
                skip_system_fonts=True,  # no text in them, and no difference between machines
            )
        )

    return draw
