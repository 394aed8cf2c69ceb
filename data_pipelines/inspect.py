r"""A page to look at: training sequences as the model sees them.

    python -m data_pipelines.inspect --data=data/pages --num=8 --out=look

Writes `index.html` with nothing outside it: of each sequence the pictures (resized, padded,
augmented), the tokens, which picture each attends to, and which of them the loss counts. It shows
what a `Stream` yields, so it is the training input itself, not a picture of how it should be.
"""

import argparse
import base64
import html
import io
import pathlib

import numpy as np
from PIL import Image

from data_pipelines import commands
from data_pipelines.streams.examples import parse_record
from data_pipelines.streams.stream import Stream
from data_pipelines.whole_files import write_whole
from flamingo_jax.batch import Batch
from flamingo_jax.tokenizer import Tokenizer

_HUES = (212, 28, 130, 285, 0, 175, 52, 330)  # of media 1, 2, ..., then again from the first
_PICTURES = {i: 0x2400 + i for i in range(32)} | {127: 0x2421}  # control characters made visible
_STYLE = pathlib.Path(__file__).with_name("inspect.css")


def main() -> None:
    """The command; prints the path of the page."""
    parser = commands.Parser(
        prog="python -m data_pipelines.inspect",
        description="An HTML page of training sequences as the model sees them.",
        epilog="example: python -m data_pipelines.inspect --data=data/pages --num=8 --out=look",
    )
    commands.add_dataset_flags(parser)
    parser.add_argument("--num", type=int, default=8, help="sequences to show")
    parser.add_argument(
        "--out", required=True, type=commands.place, metavar="DIR", help="gets index.html"
    )
    args = parser.parse_args()
    commands.run(lambda: _inspect(args))


def _inspect(args: argparse.Namespace) -> None:
    if args.num < 1:
        raise ValueError(f"--num={args.num}: use 1 or more")
    stream, tokenizer, name = commands.open_stream(
        args, batch_size=1, repeat=False, max_skipped_share=1.0
    )
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(str(out / "index.html"), page(stream, tokenizer, name, args.num).encode())
    print(out / "index.html")


def page(stream: Stream, tokenizer: Tokenizer, tokenizer_name: str, num: int) -> str:
    """The document for the first `num` good examples of a single-pass stream of batches of one."""
    config = stream.config
    sections, index = [], 0
    for index, batch in enumerate(stream):
        if batch.token_mask.any():
            sections.append(_section(batch, tokenizer, index, _provenance(stream, index)))
        if len(sections) == num:
            break
    facts = {
        "dataset": config.data_dir,
        "split": config.split,
        "kind": config.kind,
        "records": len(stream.rows.records),
        "shown": f"{len(sections)} of the first {index + 1} rows in the order of seed "
        f"{config.seed}",
        "skipped": stream.skipped or "none",
        "tokens": f"{config.num_tokens}, {tokenizer_name}",
        "media": f"at most {config.num_media}, {config.num_frames} frame(s) each",
        "p_next": config.p_next if config.kind == "page" else "for pages only",
        "flip, color": f"{config.flip}, {config.color}",
    }
    rows = "".join(f"<dt>{_escape(k)}</dt><dd>{_escape(v)}</dd>" for k, v in facts.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_escape(config.name)}: training sequences</title>"
        f"<style>{_STYLE.read_text()}{_hover_rules(config.num_media)}</style></head><body>"
        f"<h1>{_escape(config.name)}: training sequences</h1><dl>{rows}</dl>"
        '<p class="legend">The colour under a token is that of the picture it attends to, and a '
        'small number says so where it changes; <span class="t m0">grey</span> attends to none. '
        '<span class="t s">Underlined</span> tokens count in the loss. '
        '<span class="t x">Framed</span> ones are special. Point at a token for its details, or '
        f"at a picture for the text that sees it.</p>{''.join(sections)}</body></html>\n"
    )


def _section(batch: Batch, tokenizer: Tokenizer, index: int, provenance: str) -> str:
    mask, loss, phi = batch.token_mask[0], batch.loss_mask[0], batch.media_index[0]
    special = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.end_of_chunk_id}
    special |= {*tokenizer.image_tag([])}
    spans, before = [], None
    for position in np.flatnonzero(mask).tolist():
        token, media = int(batch.tokens[0, position]), int(phi[position])
        classes = f"t m{media}{' s' * bool(loss[position])}{' x' * (token in special)}"
        seen = f"sees picture {media}" if media else "sees no picture"
        counted = "counts" if loss[position] else "does not count"
        title = f"token {position}: id {token}, {seen}, {counted} in the loss"
        change = f"<sup>{media or 'none'}</sup>" if media != before else ""
        text = _visible(tokenizer.token_text(token))
        spans.append(
            f'<span class="{classes}" style="--hue:{_hue(media)}" title="{title}">'
            f"{change}{text}</span>"
        )
        before = media
    media = zip(batch.media[0], batch.media_mask[0], strict=True)
    pictures = "".join(
        _figure(frames[kept], number)
        for number, (frames, kept) in enumerate(media, 1)
        if kept.any()
    )
    counts = (
        f"{int(mask.sum())} tokens, {int(loss.sum())} in the loss, {len(mask) - int(mask.sum())} "
        f"of padding, {int(batch.media_mask[0].any(1).sum())} of {len(batch.media[0])} media"
    )
    return (
        f'<section><h2>Row {index}</h2><p class="from">{provenance}</p><p>{counts}</p>'
        f'<div class="media">{pictures}</div><div class="text">{"".join(spans)}</div></section>'
    )


def _figure(frames: np.ndarray, number: int) -> str:  # frames u8[F, H, W, 3]
    images = "".join(f'<img alt="" src="{_data_uri(frame)}">' for frame in frames)
    what = f"picture {number}" if len(frames) == 1 else f"video {number}, {len(frames)} frames"
    return (
        f'<figure class="p{number}" style="--hue:{_hue(number)}">{images}'
        f"<figcaption>{what}</figcaption></figure>"
    )


def _provenance(stream: Stream, row: int) -> str:
    """Id and metadata of the records behind the row, escaped."""
    shared = stream.config.pairs_per_row
    indices = range(row * shared, min((row + 1) * shared, len(stream.rows.records)))
    numbers = [stream.rows.record_number(index) for index in indices]
    found = [(number, parse_record(stream.rows.records.read(number))) for number in numbers]
    return "<br>".join(
        _escape(f"record {number}, {record.id}, {len(record.media)} media. ")
        + f"<code>{_escape(record.metadata)}</code>"
        for number, record in found
    )


def _visible(text: str) -> str:
    """Escaped, control characters as their pictures, a line break where there is one."""
    return _escape(text.translate(_PICTURES)).replace(chr(_PICTURES[10]), "↵<br>")


def _escape(value: object) -> str:
    return html.escape(str(value), quote=True)


def _hue(media: int) -> int:
    return _HUES[(media - 1) % len(_HUES)] if media else 0


def _hover_rules(num_media: int) -> str:
    """What lights up together: a picture and the tokens that see it."""
    return "".join(
        f"section:has(.p{n}:hover) .m{n},section:has(.m{n}:hover) .p{n}"
        "{outline:2px solid hsl(var(--hue) 80% 45%)}"
        for n in range(1, num_media + 1)
    )


def _data_uri(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
