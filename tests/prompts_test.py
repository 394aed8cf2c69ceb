"""Prompt files: what is read, and one line that names file, line and key for what is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from flamingo_jax.prompts import (
    EndOfChunk,
    ImagePart,
    Prompt,
    PromptError,
    TextPart,
    VideoPart,
    parse_parts,
    read_prompts,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    return tmp_path


def test_a_json_list_is_one_prompt_with_paths_from_its_folder(folder):
    file = folder / "one.json"
    parts = [{"image": "pictures/a.png"}, {"text": "Output: a cat "}, {"end_of_chunk": True}]
    file.write_text(json.dumps([*parts, {"video": str(folder / "clip.mp4")}], indent=1))
    assert read_prompts(file) == [
        Prompt(
            "one",
            (
                ImagePart(folder / "pictures" / "a.png"),
                TextPart("Output: a cat "),
                EndOfChunk(),
                VideoPart(folder / "clip.mp4"),
            ),
        )
    ]


def test_jsonl_has_ids_candidates_blank_lines_and_a_byte_order_mark(folder):
    file = folder / "many.jsonl"
    file.write_text(
        '\ufeff{"id": "q1", "prompt": [{"text": "Is it?"}], "candidates": [" yes", " no"]}\n'
        '\n{"prompt": [{"text": "a\\u2028b"}]}',
        encoding="utf-8",
    )
    first, second = read_prompts(file)
    assert first == Prompt("q1", (TextPart("Is it?"),), (" yes", " no"))
    assert second == Prompt("3", (TextPart("a\u2028b"),))


T = '{"text": "x"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "bad.jsonl:2: not JSON at column 2"),
        ("[]", "bad.jsonl:2: want an object"),
        (f'{{"promt": [{T}]}}', "bad.jsonl:2: unknown key 'promt'; did you mean 'prompt'"),
        ('{"id": "a"}', 'bad.jsonl:2: key "prompt" is missing'),
        ('{"prompt": []}', "bad.jsonl:2: prompt: the list of parts is empty"),
        ('{"prompt": "x"}', "bad.jsonl:2: prompt: want a list of parts"),
        (f'{{"prompt": [{T}, {{"img": "a"}}]}}', "bad.jsonl:2: prompt: part 2: unknown key 'img'"),
        ('{"prompt": [{"text": "a", "image": "b"}]}', "part 1: want an object with one key .* 2"),
        ('{"prompt": [{"text": 3}]}', "part 1: text must be a string"),
        ('{"prompt": [{"text": ""}]}', "part 1: text must be a string that is not empty"),
        ('{"prompt": [{"end_of_chunk": false}]}', "part 1: end_of_chunk must be true"),
        ('{"prompt": [{"image": 3}]}', "part 1: image must be a path, or in Python a PIL image"),
        ('{"prompt": [{"image": [1]}]}', "part 1: image must be a path"),
        ('{"prompt": [{"image": "none.png"}]}', "part 1: image: no such file .*none.png"),
        ('{"prompt": [{"image": "https://a.b/c.png"}]}', "https://a.b/c.png is an address"),
        ('{"prompt": [{"text": "a\\ud800"}]}', r"part 1: text: \\ud800 is half a character"),
        (f'{{"prompt": [{T}], "candidates": ["\\udc00"]}}', r"candidate .*\\udc00 is half"),
        ("[" * 100_000, "bad.jsonl:2: brackets in brackets"),
        (f'{{"prompt": [{{"text": {"1" * 5000}}}]}}', "bad.jsonl:2: a number of too many digits"),
        (f'{{"id": 3, "prompt": [{T}]}}', "bad.jsonl:2: id must be a string, got 3"),
        (f'{{"id": "ok", "prompt": [{T}]}}', "bad.jsonl:2: id 'ok' was used before"),
        (f'{{"prompt": [{T}], "candidates": [1]}}', "candidates must be a list of strings"),
        (f'{{"prompt": [{T}], "candidates": []}}', "candidates is empty"),
        (f'{{"prompt": [{T}], "prompt": [{T}]}}', "key 'prompt' is given twice"),
    ],
)
def test_bad_lines_are_named(folder, line, message):
    file = folder / "bad.jsonl"
    file.write_text(f'{{"id": "ok", "prompt": [{T}]}}\n{line}\n')
    with pytest.raises(PromptError, match=message) as error:
        read_prompts(file)
    assert "\n" not in str(error.value)


def test_bad_files_are_named(folder):
    with pytest.raises(PromptError, match=r"none\.json: no such file"):
        read_prompts(folder / "none.json")
    with pytest.raises(PromptError, match=r"ends in \.json"):
        read_prompts(folder / "prompt.txt")
    (folder / "d.json").mkdir()
    with pytest.raises(PromptError, match="cannot be read"):
        read_prompts(folder / "d.json")
    (folder / "latin.json").write_bytes(b'[{"text": "caf\xe9"}]')
    with pytest.raises(PromptError, match="not UTF-8 at byte 14"):
        read_prompts(folder / "latin.json")
    (folder / "empty.jsonl").write_text("\n")
    with pytest.raises(PromptError, match="no prompts"):
        read_prompts(folder / "empty.jsonl")
    (folder / "cut.json").write_text('[{"text": "a"},\n {"text": ')
    with pytest.raises(PromptError, match=r"cut\.json: line 2 not JSON"):
        read_prompts(folder / "cut.json")


def test_from_python_pictures_may_be_arrays():
    picture = np.zeros((4, 4, 3), np.uint8)
    (part, text) = parse_parts([{"image": picture}, TextPart("Output:")])
    assert part.image is picture
    assert text == TextPart("Output:")
