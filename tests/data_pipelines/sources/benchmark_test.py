"""A benchmark's training examples as records: token by token what evaluation asks and hopes for."""

import argparse
import functools
import json
import types

import numpy as np
import pytest

from data_pipelines import build, commands
from data_pipelines.reading import documents
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.reading.splits import shard_slices
from data_pipelines.records import ANSWER_START
from data_pipelines.sources import benchmark
from data_pipelines.streams.sequences import InterleavedText, answer_sequence
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.decode import prompt_batch
from flamingo_jax.eval import few_shot
from flamingo_jax.tokenizer import Tokenizer
from tests.data_pipelines.sources.converting import converted
from tests.data_pipelines.tiny_records import picture
from tests.eval.tasks import image_benchmarks_test, video_benchmarks_test

MAKE = image_benchmarks_test.MAKE | video_benchmarks_test.MAKE
TRAINED_ON = {  # texts, the answers in brackets, where they are not those of support alone
    "coco": [
        *("Output:[ Picture 0.]", "Output:[ The train picture]"),
        *("Output:[ Picture 1.]", "Output:[ The restval picture]"),
    ],
    "visdial": [
        "a cat on a mat Question: is it grey Answer:[ yes]",
        "a cat on a mat Question: is it grey Answer: yes Question: is it asleep Answer:[ no]",
    ],
    "vqav2": ["Question: What is it? Answer:[ cat]"],
    "hatefulmemes": [
        f'is an image with written: "the "train" meme" on it. Is it hateful? Answer:[ {answer}]'
        for answer in ("no", "yes")
    ],
}
BYTES = Tokenizer.byte_level()


def encoded_apart() -> types.SimpleNamespace:
    """A tokenizer that begins each text it is given anew, as sentencepiece's do."""
    names = ("bos_id", "eos_id", "pad_id", "image_id", "end_of_chunk_id", "prefix", "image_tag")
    own = {name: getattr(BYTES, name) for name in names}
    found = types.SimpleNamespace(**own, encode=lambda text: [95] * bool(text) + BYTES.encode(text))
    found.encode_behind = functools.partial(Tokenizer.encode_behind, found)
    return found


def marked(document) -> str:
    """The text with the answer in brackets."""
    text, start = document.text.encode(), document.metadata[ANSWER_START]
    return f"{text[:start].decode()}[{text[start:].decode()}]"


@pytest.mark.parametrize("name", [name for name in MAKE if name != "rareact"])
def test_a_record_is_what_evaluation_asks_and_the_answer(tmp_path, name):
    MAKE[name](tmp_path)
    source = benchmark.source(flags(name, f"--data_dir={tmp_path}"))
    task, tokenizer = source.task(), encoded_apart()
    found, counts = converted(source, [])
    assert counts.dropped == ({"not_found": 1} if name == "kinetics700" else {})
    examples = [example for example in task.training_examples() if example.path.is_file()]
    assert len({document.id for document in found}) == len(examples)
    assert not {example.path for example in examples} & {query.path for query in task.queries}
    for example, document in zip(examples, found, strict=True):
        assert document.text == task.template.fill(example.fields, example.answer)
        assert document.media == (example.path.read_bytes(),)
        row = answer_sequence(
            InterleavedText(document.text.encode(), np.array(document.media_positions)),
            document.metadata[ANSWER_START],
            tokenizer,
            num_tokens=256,
        )
        asked = few_shot.task_prompt(task.template, [], example)
        prompt = prompt_batch.encode(asked, tokenizer, ImagePreprocessing(size_px=8)).tokens
        answer = task.template.continuation(example.answer)
        answer = tokenizer.encode_behind(task.template.query(example.fields), answer)
        want = [*prompt, *answer, tokenizer.end_of_chunk_id]
        assert row.tokens[row.token_mask].tolist() == want
        assert np.flatnonzero(row.loss_mask).tolist() == [*range(len(prompt), len(want))]
    shown = {task.template.fill(example.fields, example.answer) for example in task.support}
    assert shown <= {document.text for document in found}
    if name in TRAINED_ON:
        assert [marked(document) for document in found] == TRAINED_ON[name]


def flags(task: str, *more: str) -> argparse.Namespace:
    parser = commands.Parser()
    parser.add_argument("--input")
    benchmark.add_flags(parser)
    return parser.parse_args([f"--input={task}", *more])


def write(folder, *lines):
    """A benchmark of one's own: each line a picture, and what else it says."""
    path = folder / "mine.jsonl"
    query = {"id": "q", "split": "query", "image": "0.png", "captions": ["never trained on"]}
    support = [{"id": str(i), "split": "support"} | line for i, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [query, *support]))
    return path


def test_each_caption_is_a_record_and_what_cannot_be_read_is_counted(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "1.png").write_bytes(picture(1)[:40])
    (tmp_path / "3.mp4").write_bytes(picture(3))
    path = write(
        tmp_path,
        {"image": "0.png", "captions": ["the one", "thé other"]},
        {"image": "1.png", "captions": ["cut"]},
        {"image": "2.png", "captions": ["gone"]},
        {"video": "3.mp4", "captions": ["a picture"]},
    )
    template = ("--caption_template=Ça: {}!", "--licence=CC0")
    source = benchmark.source(flags(f"jsonl:{path}", *template))
    found, counts = converted(source, [])
    assert [marked(document) for document in found] == ["Ça:[ the one!]", "Ça:[ thé other!]"]
    assert found[1].id == "mine/0_1"
    assert found[1].metadata == {
        "source": "benchmark", "task": "mine", "licence": "CC0", ANSWER_START: 4,
        "references": ["the one", "thé other"],
    }  # fmt: skip
    assert counts.dropped == {"damaged": 1, "not_found": 1, "not_a_video": 1}
    assert counts.examples["not_found"] == f"{tmp_path}/2.png: no such file"
    assert benchmark.input_files(flags(f"jsonl:{path}")) == (str(path),)


def test_a_benchmarks_own_files_tell_it_from_another(tmp_path):
    for name in ("vizwiz", "coco"):
        MAKE[name](tmp_path)
        found = benchmark.input_files(flags(name, f"--data_dir={tmp_path}"))
        assert [path.removeprefix(f"{tmp_path}/{name}/") for path in found] == {
            "vizwiz": ["Annotations/train.json", "Annotations/val.json"],
            "coco": ["dataset_coco.json"],
        }[name]


@pytest.mark.parametrize(
    ("task", "more", "says"),
    [
        ("cocoa", [], "no task 'cocoa': did you mean 'coco'"),
        ("coco", [], "reads files in --data_dir, which is not given"),
        ("coco", ["--data_dir=gs://bucket"], "--data_dir=gs://bucket: give a folder"),
        ("jsonl:{folder}/mine.jsonl", [], "mine.jsonl: no training examples, only queries"),
        ("jsonl:{folder}/mine.jsonl", ["--caption_template=Output:"], "must hold {} once"),
        ("jsonl:{folder}/none.jsonl", [], "none.jsonl: no such file"),
    ],
)
def test_what_a_user_can_mend_is_one_line(tmp_path, task, more, says):
    write(tmp_path)
    with pytest.raises(ValueError, match=says.replace("{}", r"\{\}")) as raised:
        benchmark.source(flags(task.format(folder=tmp_path), *more))
    assert "\n" not in str(raised.value)


def test_the_command_builds_it(tmp_path, monkeypatch, capsys):
    """All of a picture together, and says of another benchmark that it is one."""
    lines = []
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        captions = [f"caption {i}" for i in range(3)]
        lines.append({"image": f"{number}.png", "captions": captions})
    path = write(tmp_path, *lines)
    words = ["build", "--source=benchmark", f"--input=jsonl:{path}", f"--output={tmp_path}/mine"]
    monkeypatch.setattr("sys.argv", words)
    build.main()
    assert "records: 27 read, 27 kept, 0 dropped" in capsys.readouterr().out
    index = RecordIndex(shard_slices(tmp_path / "mine", "train", "mine"))
    ids = [document.id for document in documents.read(index, range(27))]
    of_pictures = [{name[:-2] for name in ids[i : i + 3]} for i in range(0, 27, 3)]
    assert [len(names) for names in of_pictures] == [1] * 9  # so that slices cut between pictures
    assert ids != sorted(ids)
    write(tmp_path, *lines, lines[0])
    with pytest.raises(ValueError, match="holds another build, which differs in files_sha256"):
        build.main()
