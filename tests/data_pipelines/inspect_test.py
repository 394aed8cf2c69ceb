"""The page of training sequences: what it shows, and that nothing in a dataset can break it."""

import html.parser
import pathlib
import re
import struct
import sys

import pytest

from data_pipelines import benchmark, commands, inspect
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from tests.data_pipelines.tiny_records import pairs, picture, record
from tests.data_pipelines.tiny_video import video

TOKENIZER = Tokenizer.byte_level()


class Reader(html.parser.HTMLParser):
    """Collects tags, token spans and pictures; fails where a tag is not closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tokens, self.sources, self.tags = [], [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "span" and "title" in attrs:
            self.tokens.append((attrs["class"].split(), attrs["title"]))
        if tag == "img":
            self.sources.append(attrs["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def shown(data_dir: str, num: int = 8, **changes) -> tuple[str, Reader]:
    config = StreamConfig(
        "tiny", data_dir, batch_size=1, shuffle=False, repeat=False, **{"kind": "page"} | changes
    )
    stream = Stream(config, TOKENIZER, preprocessing=ImagePreprocessing(size_px=8))
    text = inspect.page(stream, TOKENIZER, "bytes", num)
    return text, Reader(text)


def test_each_token_says_which_picture_it_sees_and_whether_it_counts(build_dataset):
    data_dir = build_dataset([record("a", "xyz", [0, 2], [picture(1), picture(2)])])
    _, page = shown(data_dir, p_next=0.0, num_tokens=32)
    # <BOS> <image> x y <EOC> <image> z <EOC> <EOS>
    assert [int(classes[1][1:]) for classes, _ in page.tokens] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert ["s" in classes for classes, _ in page.tokens] == [c == "s" for c in "--sss-sss"]
    assert ["x" in classes for classes, _ in page.tokens] == [c == "x" for c in "xx--xx-xx"]
    assert page.tokens[6][1] == "token 6: id 122, sees picture 2, counts in the loss"
    assert len(page.sources) == 2


def test_it_stands_alone(build_dataset):
    text, page = shown(build_dataset(pairs(3)), kind="pair", num_tokens=8)
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert len(page.sources) == 3
    assert "http" not in text
    assert not page.tags & {"script", "link", "iframe"}


def test_text_and_metadata_cannot_break_the_page(build_dataset):
    evil = "<script>alert(1)</script>\"'&amp;\x00\x1b\u202e\n</section>"
    bad = {**record("<b>&\"'", evil, media=[picture(1)]), "metadata": '{"a": "</code><img src=x>"}'}
    text, page = shown(build_dataset([bad]))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert len(page.sources) == 1
    assert "\x00" not in text
    assert "\x1b" not in text
    assert "↵<br>" in text


def test_bad_records_are_named_and_passed_over(build_dataset):
    records = [record("bad", "x", media=[b"no picture"]), *pairs(4)]
    text, page = shown(build_dataset(records), num=2, kind="pair", max_skipped_share=1.0)
    assert len(page.sources) == 2
    assert "not_an_image&#x27;: 1" in text
    assert "2 of the first 3 rows" in text


def test_frames_of_a_video_stand_side_by_side(build_dataset):
    data_dir = build_dataset([record("a", "x", media=[video(12)])])
    text, page = shown(data_dir, kind="pair", num_frames=8)
    assert len(page.sources) == 3
    assert "video 1, 3 frames" in text


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(command, *arguments)`: what the command prints."""

    def run(command, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
        capsys.readouterr()
        command.main()
        return capsys.readouterr().out

    return run


def test_the_commands(build_dataset, tmp_path, run, capsys):
    data_dir = build_dataset([record("a", "x", media=[video(12)]), *pairs(3)])
    flags = [f"--data={tmp_path}", "--tokenizer=bytes", "--size_px=16"]
    assert run(inspect, *flags, "--num=2", f"--out={tmp_path}/look") == (
        f"{tmp_path}/look/index.html\n"
    )
    assert (tmp_path / "look/index.html").read_text().count("<section>") == 2
    printed = run(benchmark, *flags, "--seconds=0.2")
    assert f"{data_dir}: 4 records as pairs" in printed
    assert "examples/s" in printed
    for wrong, message in (
        ("--data=nowhere", "--data=nowhere: no dataset_info.json"),
        ("--seconds=nan", "--seconds=nan: use more than 0"),
        ("--num_workers=0", "--num_workers=0: use 1 or more"),
        ("--num_workers=100000", "tiny: num_workers=100000: use 0 (one a core) to 1024"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(benchmark, *flags, wrong)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {message}")
        assert len(printed.err.splitlines()) == 1


def test_a_dataset_copied_in_part_is_named(build_dataset, tmp_path):
    data_dir = pathlib.Path(build_dataset(pairs(3)))
    (shard,) = data_dir.glob("*.tfrecord*")
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"1 of 1 shards are missing, .*{shard.name}"):
        commands._peek(data_dir, "train")
    (tmp_path / "elsewhere").rename(shard)
    (data_dir / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=f"^--split: {data_dir} is damaged, .*: copy or build it"):
        commands._peek(data_dir, "train")


def test_the_first_record_may_be_damaged(build_dataset):
    data_dir = pathlib.Path(build_dataset(pairs(3)))
    (shard,) = data_dir.glob("*.tfrecord*")
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    assert commands._peek(data_dir, "train") == ("pair", False)


def test_ctrl_c_is_a_word(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        commands.run(interrupted)
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_what_the_flags_leave_open_is_told_from_the_records(build_dataset, tmp_path):
    parser = commands.Parser()
    commands.add_dataset_flags(parser)

    def opened(data_dir, *more):
        args = parser.parse_args([f"--data={data_dir}", "--tokenizer=bytes", *more])
        return commands.open_stream(args, batch_size=1)[0].config

    paired = opened(build_dataset(pairs(3), "paired"))
    assert (paired.kind, paired.num_tokens, paired.num_frames) == ("pair", 32, 1)
    asked = [{**one, "metadata": '{"answer_start": 0}'} for one in pairs(3)]
    asked = opened(build_dataset(asked, "asked"))
    assert (asked.kind, asked.num_tokens, asked.num_media) == ("answer", 256, 1)
    media = [picture(1), video(4)]
    mixed = opened(build_dataset([record("a", "x", [0, 0], media)], "mixed"))
    assert (mixed.kind, mixed.num_tokens, mixed.num_frames) == ("page", 256, 8)
    one_each = [
        record(name, "above it", [place], [picture(1)]) for name, place in (("a", 0), ("b", 5))
    ]
    assert opened(build_dataset(one_each, "pages_of_one")).kind == "page"
    with pytest.raises(ValueError, match="holds 4 datasets"):
        opened(tmp_path)
    for split in ("test", "train[10"):
        with pytest.raises(ValueError, match=rf"^--split: no split {re.escape(repr(split))} in"):
            opened(f"{tmp_path}/paired", f"--split={split}")
    assert opened(f"{tmp_path}/paired", "--split=train[:2]+train[2:]").kind == "pair"
    for wrong in ("--num_tokens=0", "--num_frames=0"):
        with pytest.raises(ValueError, match=f"{wrong[2:]}: use 1 or more"):
            opened(f"{tmp_path}/paired", wrong)
    with pytest.raises(ValueError, match="no such file"):
        opened(f"{tmp_path}/paired", "--tokenizer=nowhere.model")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 20) + b"general.name")
    with pytest.raises(ValueError, match=r"damaged\.gguf: cut short or damaged inside its header"):
        opened(f"{tmp_path}/paired", f"--tokenizer={damaged}")
