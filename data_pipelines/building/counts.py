"""What a build read, kept and dropped, by reason: added up over chunks and shards, saved as JSON.

Two sums always hold: what was read is what was kept and what was dropped, of records as of media.
Media of a record that was dropped before they were looked at are not counted as read.
"""

import collections
import dataclasses
from typing import Any

_MAX_EXAMPLE = 300  # characters of a message that are kept


@dataclasses.dataclass
class Counts:
    """Records and media by what became of them, and for every reason one message as an example."""

    kept: int = 0
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    media_kept: int = 0
    media_dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)

    def drop(self, reason: str, message: str = "") -> None:
        """One record less; `reason` is a snake_case word, `message` says which record and why."""
        self.dropped[reason] += 1
        self._example(reason, message)

    def drop_media(self, reason: str, message: str = "", number: int = 1) -> None:
        """One medium, or `number` of them, less in a record that may be kept without."""
        self.media_dropped[reason] += number
        self._example(reason, message)

    def add(self, other: "Counts") -> None:
        """Adds the counts of another part of the input; of two examples the first stays."""
        self.kept += other.kept
        self.media_kept += other.media_kept
        self.dropped.update(other.dropped)
        self.media_dropped.update(other.media_dropped)
        self.examples = other.examples | self.examples

    def to_json(self) -> dict[str, Any]:
        """`records` and `media` with `read`, `kept` and `dropped` by reason; and `examples`."""
        return {
            "records": _table(self.kept, self.dropped),
            "media": _table(self.media_kept, self.media_dropped),
            "examples": dict(sorted(self.examples.items())),
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Counts":
        """The inverse of `to_json`."""
        return cls(
            kept=table["records"]["kept"],
            dropped=collections.Counter(table["records"]["dropped"]),
            media_kept=table["media"]["kept"],
            media_dropped=collections.Counter(table["media"]["dropped"]),
            examples=dict(table["examples"]),
        )

    def __str__(self) -> str:
        """A few lines for people, the most frequent reason first."""
        lines = []
        for name, kept, dropped in (
            ("records", self.kept, self.dropped),
            ("media", self.media_kept, self.media_dropped),
        ):
            total = dropped.total()
            lines.append(f"{name}: {kept + total} read, {kept} kept, {total} dropped")
            for reason, number in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
                example = self.examples.get(reason)
                lines.append(f"  {number:8d}  {reason}" + (f"  ({example})" if example else ""))
        return "\n".join(lines)

    def _example(self, reason: str, message: str) -> None:
        if message:
            printable = message.encode(errors="backslashreplace").decode()  # file names may not be
            self.examples.setdefault(reason, " ".join(printable.split())[:_MAX_EXAMPLE])


def _table(kept: int, dropped: collections.Counter) -> dict[str, Any]:
    return {"read": kept + dropped.total(), "kept": kept, "dropped": dict(sorted(dropped.items()))}
