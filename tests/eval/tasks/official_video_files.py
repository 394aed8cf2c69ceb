"""Tiny benchmarks of videos in the layouts of their official files, with real MP4s."""

import pathlib

from tests.data_pipelines import tiny_video
from tests.eval.tasks.official_files import write_json, write_lines


def write_video(path: pathlib.Path) -> None:
    """Three frames; of a name that ends in .avi in that container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = tiny_video.encoded("avi") if path.suffix == ".avi" else tiny_video.video(3)
    path.write_bytes(data)


def msvdqa(folder: pathlib.Path) -> None:
    """A question a split."""
    lines = []
    for number, split in enumerate(("train", "test"), 1):
        record = {"answer": "cat", "id": 0, "question": "what is asleep?", "video_id": number}
        write_json(folder / "msvdqa" / f"{split}_qa.json", [record])
        write_video(folder / "msvdqa" / "videos" / f"abc{number}_1_5.avi")
        lines.append(f"abc{number}_1_5 vid{number}")
    write_lines(folder / "msvdqa" / "youtube_mapping.txt", *lines)


def msrvttqa(folder: pathlib.Path) -> None:
    """A question a split."""
    for number, split in enumerate(("train", "test")):
        record = {"answer": "dog", "category_id": 1, "id": 3, "question": "who runs?"}
        write_json(folder / "msrvttqa" / f"{split}_qa.json", [record | {"video_id": number}])
        write_video(folder / "msrvttqa" / "videos" / f"video{number}.mp4")


def ivqa(folder: pathlib.Path) -> None:
    """A question a split."""
    header = "video_id,start,end,question,answer1,answer2,answer3,answer4,answer5"
    for number, split in enumerate(("train", "test")):
        row = f'vid{number},3,11,"what, then?",saw,wood,wood,log,tree'
        write_lines(folder / "ivqa" / f"{split}.csv", header, row)
        write_video(folder / "ivqa" / "videos" / f"vid{number}_000003_000011.mp4")


def nextqa(folder: pathlib.Path) -> None:
    """A question of each of two types a split; one of test's has a second answer."""
    header = "video,frame_count,width,height,question,answer,qid,type"
    places = {}
    for number, split in enumerate(("train", "test")):
        rows = [
            f"10{number},90,64,48,why did the boy run,to catch the dog,0,CW",
            f"10{number},90,64,48,what did he do before that,sleep,5,TP",
        ]
        write_lines(folder / "nextqa" / f"{split}.csv", header, *rows)
        places[f"10{number}"] = f"000{number}/10{number}"
        write_video(folder / "nextqa" / "NExTVideo" / f"000{number}" / f"10{number}.mp4")
    write_json(folder / "nextqa" / "map_vid_vidorID.json", places)
    second = {"101": {"0": "the dog ran away"}}
    write_json(folder / "nextqa" / "add_reference_answer_test.json", second)


def star(folder: pathlib.Path) -> None:
    """A question a split."""
    for number, split in enumerate(("train", "val")):
        name = f"Interaction_T1_{number}"
        choices = [{"choice_id": i, "choice": f"The {x}."} for i, x in enumerate("abcd")]
        record = {"question_id": name, "question": "Which object?", "answer": "The b."}
        write_json(folder / "star" / f"STAR_{split}.json", [record | {"choices": choices}])
        write_video(folder / "star" / "videos" / f"{name}.mp4")


def vatex(folder: pathlib.Path) -> None:
    """A video a split."""
    names = "vatex_training_v1.0.json", "vatex_public_test_english_v1.1.json"
    for number, name in enumerate(names):
        video = f"id{number}_000010_000020"
        captions = [f"A man {verb}." for verb in ("runs", "jogs")]
        write_json(folder / "vatex" / name, [{"videoID": video, "enCap": captions}])
        write_video(folder / "vatex" / "videos" / f"{video}.mp4")


def youcook2(folder: pathlib.Path) -> None:
    """A video a split, with one segment."""
    database = {}
    for number, subset in enumerate(("training", "validation")):
        annotation = {"id": 0, "segment": [41, 54], "sentence": "stir the soup"}
        database[f"id{number}"] = {"subset": subset, "annotations": [annotation]}
        write_video(folder / "youcook2" / "videos" / f"id{number}_000041_000054.mp4")
    path = folder / "youcook2" / "youcookii_annotations_trainval.json"
    write_json(path, {"database": database})


def rareact(folder: pathlib.Path) -> None:
    """Three clips of two actions."""
    lines = ["id,video_id,start,end,class_id,verb,noun,annotation"]
    rows = [("blend", "phone", 0, 1), ("wash", "apple", 1, 1), ("blend", "phone", 0, 0)]
    for number, (verb, noun, class_id, annotation) in enumerate(rows):
        lines.append(f"{number},v{number},1,9,{class_id},{verb},{noun},{annotation}")
        write_video(folder / "rareact" / "videos" / f"v{number}_000001_000009.mp4")
    write_lines(folder / "rareact" / "rareact.csv", *lines)


def kinetics700(folder: pathlib.Path) -> None:
    """Two actions, a video a split of each; the training video of another is not there."""
    header = "label,youtube_id,time_start,time_end,split"
    for split, videos in (("train", "train"), ("validate", "val")):
        lines = [header]
        for label in ("abseiling", "air drumming"):
            name = f"{split}-{label[:2]}"
            lines.append(f"{label},{name},4,14,{split}")
            write_video(folder / "kinetics700" / videos / f"{name}_000004_000014.mp4")
        if split == "train":
            lines.append(f"abseiling,gone,4,14,{split}")
        write_lines(folder / "kinetics700" / f"{split}.csv", *lines)
