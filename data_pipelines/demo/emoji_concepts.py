"""Emoji as concepts, and which concepts are held out.

Names are those of Unicode's CLDR as `emojibase-data` lists them. The paper evaluates on data sets
it never trained on; in a small world of some 1,900 emoji the split has to see to that, so it goes
by concept: "firefighter", "man firefighter" and "woman firefighter" are one, whoever drew them, and
a concept is in training for all artists or for none. Nor is a held-out name any other name or
keyword of a picture in training, as "bus" is of the oncoming bus.
"""

import dataclasses
import hashlib
import json
import pathlib
import re

_COMPONENTS = "component"  # skin tones and hair alone, no pictures of something
_FLAGS = "flags"
_PEOPLE = "people-body"
_HELD_OUT_SHARE = 0.18  # of concepts
# 24 heads that differ in hair and age, and 30 families: held out, they would swamp the test.
_ALWAYS_TRAINED = ("person", "family")
_SPLIT_NAME = "flamingo_jax emoji 1"  # another one gives another split

_WHO = re.compile(r"\b(?:m[ae]n|wom[ae]n|person|people|adult|boy|girl|child)(?:[\u2019']s)?\b")
_JOINS = re.compile(r"^(?:(?:and|with|in|,)\s+)+|\s+and$")
_ALIASES = {
    "merman": "merperson",
    "mermaid": "merperson",
    "prince": "crown",
    "princess": "crown",
    "mrs. claus": "santa claus",
    "mx claus": "santa claus",
    "older": "old",
    "breast-feeding": "feeding baby",
    "ballet dancer": "dancing",
}
_SHORTCODES = ("cldr", "emojibase", "github", "iamcal", "joypixels")


@dataclasses.dataclass(frozen=True)
class Emoji:
    """One emoji, without skin tones, whoever draws it."""

    code: str  # lower-case code points joined by "-", without variation selectors
    name: str  # CLDR's, "woman firefighter"
    concept: str  # "firefighter"
    group: str  # "people & body"
    subgroup: str  # "roles & careers"
    references: tuple[str, ...]  # other names that people gave it, without `name`
    tags: tuple[str, ...]  # CLDR's keywords
    is_flag: bool

    @property
    def held_out(self) -> bool:
        return is_held_out(self.concept)


def is_held_out(concept: str) -> bool:
    """Whether all pictures of `concept` are kept out of training; the same on every machine."""
    if concept in _ALWAYS_TRAINED:
        return False
    digest = hashlib.sha256(f"{_SPLIT_NAME}:{concept}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < _HELD_OUT_SHARE * 2**64


def concept_of(name: str, group: str, subgroup: str) -> str:
    """What is left of a CLDR name without gender, number, age, hair, skin tone and direction.

    `group` and `subgroup` are emojibase's keys. "man firefighter" is "firefighter"; "man: red
    hair", "woman" and "boy" are "person"; "kiss: man, man" is "kiss", "dog face" is "dog".
    """
    concept = name.lower()
    if group == _FLAGS:
        return concept
    if group == _PEOPLE:
        concept = concept.partition(":")[0]
    if subgroup == "animal-mammal":
        concept = concept.removesuffix(" face")
    concept = " ".join(_WHO.sub(" ", concept).split())
    concept = _JOINS.sub("", concept) or "person"
    return _ALIASES.get(concept, concept)


def normalized_code(code: str) -> str:
    """Lower-case code points without variation selectors, on which all packages agree."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def load_emoji(english: pathlib.Path) -> list[Emoji]:
    """All emoji that show something, in CLDR's order, from emojibase's folder `package/en`."""
    records = json.loads((english / "data.json").read_text("utf-8"))
    messages = json.loads((english / "messages.json").read_text("utf-8"))
    groups = {group["order"]: group for group in messages["groups"]}
    # Seafood, which has no records left, shares its "order" with sweets behind it: the last counts.
    subgroups = {subgroup["order"]: subgroup for subgroup in messages["subgroups"]}
    shortcodes = [
        json.loads((english / "shortcodes" / f"{kind}.json").read_text("utf-8"))
        for kind in _SHORTCODES
    ]
    found = []
    for record in records:
        group = groups.get(record.get("group"))
        if group is None or group["key"] == _COMPONENTS:
            continue
        subgroup = subgroups[record["subgroup"]]
        name = record["label"]
        found.append(
            Emoji(
                code=normalized_code(record["hexcode"]),
                name=name,
                concept=concept_of(name, group["key"], subgroup["key"]),
                group=group["message"],
                subgroup=subgroup["message"],
                references=_references(
                    name, [codes.get(record["hexcode"]) for codes in shortcodes]
                ),
                tags=tuple(record.get("tags", ())),
                is_flag=group["key"] == _FLAGS,
            )
        )
    return _apart(found)


def _apart(emoji: list[Emoji]) -> list[Emoji]:
    """The same without other names and keywords that are names on the other side of the split."""
    held_out = {
        text.lower()
        for one in emoji
        if one.held_out
        for text in (one.name, one.concept, *one.references)
    }
    trained = {one.name.lower() for one in emoji if not one.held_out}

    def kept(one: Emoji, texts: tuple[str, ...]) -> tuple[str, ...]:
        others = trained if one.held_out else held_out
        return tuple(text for text in texts if text.lower() not in others)

    return [
        dataclasses.replace(one, references=kept(one, one.references), tags=kept(one, one.tags))
        for one in emoji
    ]


def _references(name: str, shortcodes: list[str | list[str] | None]) -> tuple[str, ...]:
    """Shortcodes as people would write them; those with no word of two letters ("+1") are left."""
    names: dict[str, None] = {}
    for codes in shortcodes:
        for code in [codes] if isinstance(codes, str) else codes or []:
            names[" ".join(code.replace("_", " ").lower().split())] = None
    names.pop(name.lower(), None)
    return tuple(other for other in names if re.search(r"[^\W\d]{2}", other))
