"""NExT-QA, open-ended: why, when and what in videos of daily life.

    nextqa/{train,test}.csv    nextqa/add_reference_answer_test.json    of NExT-OE
    nextqa/map_vid_vidorID.json    nextqa/NExTVideo/1164/3238737531.mp4    of NExT-QA

Paper: section 3; WUPS on test. Half of test's videos have a second right answer to each question.
Questions are as in the file, which has no question marks. Scores of the eight types of questions
are given beside the mean over all; the few about what came before are of the same type as those
about what came next, as in the official scorer.
"""

import pathlib
from collections.abc import Mapping

from flamingo_jax.eval.task import QUESTION, Example, Task, TaskError
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import VideoPart

_QUESTIONS, _VIDEOS = "https://github.com/doc-doc/NExT-OE", "https://github.com/doc-doc/NExT-QA"
_TYPES = {  # of the file, and as they are scored: causal, temporal, descriptive
    name: "TN" if name == "TP" else name
    for name in ("CW", "CH", "TN", "TP", "TC", "DB", "DC", "DL", "DO")
}


def nextqa(data_dir: pathlib.Path, caption_template: str) -> Task:
    """NExT-QA."""
    folder = data_dir / "nextqa"
    places = files.read_json(folder / "map_vid_vidorID.json", _VIDEOS)
    second = files.read_json(folder / "add_reference_answer_test.json", _QUESTIONS)
    support = _read(folder, "train", places, {})
    queries = _read(folder, "test", places, second)
    files.folder(folder / "NExTVideo", _VIDEOS)
    return Task("nextqa", "test", QUESTION, "wups", queries, support)


def _read(
    folder: pathlib.Path,
    split: str,
    places: Mapping[str, str],
    second: Mapping[str, Mapping[str, str]],
) -> list[Example]:
    """`places` are videos' files without their ending, `second` the other answers, by video."""
    found = []
    for where, row in files.read_csv(folder / f"{split}.csv", _QUESTIONS):
        video, question, answer, number, kind = (
            files.field(row, key, where) for key in ("video", "question", "answer", "qid", "type")
        )
        if "a0" in row:
            raise TaskError(f"{where}: of the multiple choice; the open-ended one: {_QUESTIONS}")
        if kind not in _TYPES:
            raise TaskError(f"{where}: type is {kind!r}; known are {', '.join(_TYPES)}")
        if video not in places:
            raise TaskError(f"{where}: video {video} is not in map_vid_vidorID.json")
        other = second.get(video, {}).get(number)
        media = VideoPart(folder / "NExTVideo" / f"{places[video]}.mp4")
        references = (answer,) if other is None else (answer, str(other))
        name, fields = f"{video}_{number}", {"question": question}
        found.append(Example(name, media, answer, references, fields, group=_TYPES[kind]))
    return found
