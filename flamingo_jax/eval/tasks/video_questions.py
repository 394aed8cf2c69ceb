"""MSVD-QA, MSRVTT-QA and iVQA: questions about short videos.

    msvdqa/{train,test}_qa.json    msvdqa/youtube_mapping.txt    msvdqa/videos/YTID_S_E.avi
    msrvttqa/{train,test}_qa.json                                msrvttqa/videos/video7010.mp4
    ivqa/{train,test}.csv                                        ivqa/videos/ID_000010_000020.mp4

Paper: section 3; the first two by exact match of a word, iVQA by its own accuracy, all on test. A
video is its file, and of iVQA the part of it that the row names, cut out: video id, start and end
in whole seconds.
"""

import pathlib
from collections.abc import Callable

from flamingo_jax.eval.task import QUESTION, Example, Task, TaskError, shown_answer
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import VideoPart

_MSVD = "https://github.com/xudejing/video-question-answering"
_IVQA = "https://github.com/antoyang/just-ask"


def msvdqa(data_dir: pathlib.Path, caption_template: str) -> Task:
    """MSVD-QA, whose questions name videos by number."""
    folder = data_dir / "msvdqa"
    names = {}
    for where, line in files.read_text_lines(folder / "youtube_mapping.txt", _MSVD):
        name, _, number = line.partition(" ")
        if not number.startswith("vid"):
            raise TaskError(f"{where}: want a video's name and number, as in abc_1_5 vid7")
        names[number.removeprefix("vid")] = name

    def video(number: str, where: str) -> str:
        if number not in names:
            raise TaskError(f"{where}: video {number} is not in youtube_mapping.txt")
        return f"{names[number]}.avi"

    return _by_number("msvdqa", folder, video)


def msrvttqa(data_dir: pathlib.Path, caption_template: str) -> Task:
    """MSRVTT-QA."""
    return _by_number("msrvttqa", data_dir / "msrvttqa", lambda number, _: f"video{number}.mp4")


def ivqa(data_dir: pathlib.Path, caption_template: str) -> Task:
    """iVQA, with five answers a question."""
    folder = data_dir / "ivqa"

    def read(split: str) -> list[Example]:
        found = []
        for number, (where, row) in enumerate(files.read_csv(folder / f"{split}.csv", _IVQA)):
            answers = tuple(files.field(row, f"answer{i}", where) for i in range(1, 6))
            name = clip_name(
                *(files.field(row, key, where) for key in ("video_id", "start", "end"))
            )
            question = {"question": files.field(row, "question", where)}
            media = VideoPart(videos / name)
            found.append(
                Example(f"{split}{number}", media, shown_answer(answers), answers, question)
            )
        return found

    videos = folder / "videos"
    support, queries = read("train"), read("test")
    files.folder(videos, _IVQA)
    return Task("ivqa", "test", QUESTION, "ivqa_accuracy", queries, support)


def clip_name(video_id: str, start: str | float, end: str | float) -> str:
    """The file of a part of a video, as Kinetics' are called."""
    return f"{video_id}_{round(float(start)):06d}_{round(float(end)):06d}.mp4"


def _by_number(name: str, folder: pathlib.Path, video: Callable[[str, str], str]) -> Task:
    def read(split: str) -> list[Example]:
        path, found = folder / f"{split}_qa.json", []
        for number, record in enumerate(files.read_json(path, _MSVD)):
            where = f"{path}: record {number}"
            answer = files.field(record, "answer", where)
            media = VideoPart(videos / video(str(files.field(record, "video_id", where)), where))
            question = {"question": files.field(record, "question", where)}
            name = f"{split}{files.field(record, 'id', where)}"
            found.append(Example(name, media, answer, (answer,), question))
        return found

    videos = folder / "videos"
    support, queries = read("train"), read("test")
    files.folder(videos, _MSVD)
    return Task(name, "test", QUESTION, "first_word", queries, support)
