"""Pages of several emoji with text between, in the manner of M3W (paper, section 2.4).

A page is 3 to 8 pictures, each followed by its name. In half of the rounds over the training
pictures a page keeps to one subgroup and begins with a heading, so that text and other pictures say
something about a picture; in the other half its pictures have nothing in common. The paper's pages
are scraped; these are set, so their text is short and clean.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from data_pipelines.demo.emoji_pictures import Picture
from data_pipelines.records import Document

_MIN_PICTURES, _MAX_PICTURES = 3, 8
_SEED = "flamingo_jax emoji pages 1"


def draw_pages(pictures: Sequence[Picture]) -> Iterator[Document]:
    """Pages in which every picture stands four times, always the same for the same pictures.

    Once among one artist's of its subgroup, once among all artists' of its subgroup, and twice
    among any. Where a subgroup has fewer than three pictures, those are left out of that round.
    """
    rounds = (
        ("artist_subgroup", lambda picture: (picture.artist.key, _heading(picture)), True),
        ("subgroup", _heading, True),
        ("mixed_a", lambda picture: "", False),
        ("mixed_b", lambda picture: "", False),
    )
    for name, key, headed in rounds:
        rng = random.Random(f"{_SEED}:{name}")
        ordered = sorted(pictures, key=lambda picture: (key(picture), picture.key))
        number = itertools.count()
        for _, pool in itertools.groupby(ordered, key):
            for page in _deal(list(pool), rng):
                yield _page(f"{name}/{next(number):05d}", page, headed)


def _deal(pool: list[Picture], rng: random.Random) -> Iterator[list[Picture]]:
    """Deals a shuffled pool out to pages; a last page that is too short takes from the others."""
    if len(pool) < _MIN_PICTURES:
        return
    rng.shuffle(pool)
    start = 0
    while start < len(pool):
        stop = start + rng.randint(_MIN_PICTURES, _MAX_PICTURES)
        page = pool[start:stop]
        if len(page) < _MIN_PICTURES:
            page += rng.sample(pool[:start], _MIN_PICTURES - len(page))
        yield page
        start = stop


def _heading(picture: Picture) -> str:
    """Such as "Animals and nature: birds."; the names are emojibase's."""
    words = f"{picture.emoji.group}: {picture.emoji.subgroup}."
    words = words.replace(" & ", " and ").replace(" / ", " or ")
    return words[0].upper() + words[1:]


def _page(page_id: str, pictures: Sequence[Picture], headed: bool) -> Document:
    """Text is cut at the pictures, so a name carries the space before it, not one behind it."""
    text = _heading(pictures[0]) if headed else ""
    positions = []
    for picture in pictures:
        positions.append(len(text.encode()))
        text += f" {picture.emoji.name}" if text else picture.emoji.name
    artists = sorted({picture.artist for picture in pictures}, key=lambda artist: artist.key)
    return Document(
        id=f"emoji_page/{page_id}",
        text=text,
        media_positions=tuple(positions),
        media=tuple(picture.data for picture in pictures),
        metadata={
            "source": ", ".join(artist.credit for artist in artists),
            "licence": ", ".join(sorted({artist.licence for artist in artists})),
            "concepts": [picture.emoji.concept for picture in pictures],
            "groups": sorted({picture.emoji.group for picture in pictures}),
        },
    )
