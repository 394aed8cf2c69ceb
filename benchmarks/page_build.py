"""Synthetic pages as WARC files through `data_pipelines.build`: pages a second, and peak memory.

    python -m benchmarks.page_build --num_pages=10000 --folder=/tmp/pages
    python -m benchmarks.page_build --num_pages=10000 --folder=/tmp/pages --kill

A page has 120 random words in four paragraphs, two 160 x 120 JPEGs between them, and navigation
with an icon around them; pictures lie in the same WARC file. `--kill` builds a second time, kills
that build when about half of the chunks are there, runs it again, and compares the two datasets
byte for byte.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

_PAGES_PER_FILE = 5_000
_CHUNK = 500  # records, the command's default
_DATASET = "pages/1.0.0"
_WORDS = """
    the of and to in that with have be it for on as at by this from or an they which one you
    all were her she there would their we him been has when who will more no if out so said
    what up its about into than them can only other new some could time these two may then do
    first any my now such like our over man me even most made after also did many before must
    through back years where much your way well down should because each just those people how
    too little state good very make world still own see men work long get here between both
    life being under never day same another know while last might us great old year off come
    since against go came right used take three house river mountain garden picture street
    market window winter summer bridge forest
"""


def main() -> None:
    """Writes the WARC files where they are missing, builds, prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_pages", type=int, default=10_000)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kill", action="store_true", help="also kill a build and go on with it")
    args = parser.parse_args()
    folder = args.folder / str(args.num_pages)
    write_pages(folder / "warc", args.num_pages)
    shutil.rmtree(folder / "whole", ignore_errors=True)
    start = time.monotonic()
    subprocess.run(_command(folder, "whole", args.workers), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "num_pages": args.num_pages,
        "seconds": round(seconds, 1),
        "pages_per_second": round(args.num_pages / seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "pages_per_cpu_second": round(args.num_pages / (usage.ru_utime + usage.ru_stime), 1),
        "peak_rss_mib": usage.ru_maxrss >> 10,
        "records": json.loads((folder / "whole" / _DATASET / "counts.json").read_text())["records"],
        "cpus": os.cpu_count(),
    }
    if args.kill:
        result["killed_after_chunks"] = _kill_half_way(folder, args.num_pages, args.workers)
        result["same_after_kill"] = digests(folder / "whole" / _DATASET) == digests(
            folder / "killed" / _DATASET
        )
    print(json.dumps(result))


def write_pages(folder: pathlib.Path, num_pages: int) -> None:
    """WARC files of `num_pages` pages, all different, the same for the same number."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, num_pages, _PAGES_PER_FILE):
        path = folder / f"{first:08d}.warc.gz"
        if path.exists():
            continue
        rng = random.Random(first)
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            writer = WARCWriter(file, gzip=True)
            for number in range(first, min(num_pages, first + _PAGES_PER_FILE)):
                _write_page(writer, number, rng)
        partial.rename(path)


def digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file of a dataset."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _write_page(writer: WARCWriter, number: int, rng: random.Random) -> None:
    url = f"http://site{number % 997}.example/page{number}.html"
    paragraphs = [" ".join(rng.choices(_WORDS.split(), k=30)).capitalize() + "." for _ in range(4)]
    images = [f"image{number}-{i}.jpg" for i in range(2)]
    body = (
        "<html><head><title>A page</title></head><body><nav><a href='/'>Home</a>"
        "<img src='/icon.png'></nav><div class='content'>"
        f"<h1>Page {number}</h1><p>{paragraphs[0]}</p><img src='{images[0]}' alt='one'>"
        f"<p>{paragraphs[1]}</p><p>{paragraphs[2]} <a href='/more'>More</a></p>"
        f"<figure><img src='{images[1]}'><figcaption>{paragraphs[3]}</figcaption></figure></div>"
        "<footer>Terms and conditions</footer></body></html>"
    )
    _write(writer, url, "text/html; charset=utf-8", body.encode())
    for image in images:
        _write(writer, url.rpartition("/")[0] + "/" + image, "image/jpeg", _picture(rng))


def _picture(rng: random.Random) -> bytes:
    colors = np.random.default_rng(rng.getrandbits(64)).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(colors).resize((160, 120), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def _write(writer: WARCWriter, url: str, content_type: str, data: bytes) -> None:
    headers = StatusAndHeaders("200 OK", [("Content-Type", content_type)], protocol="HTTP/1.1")
    record = writer.create_warc_record(
        url,
        "response",
        payload=io.BytesIO(data),
        http_headers=headers,
        warc_headers_dict={"WARC-Date": "2026-11-21T00:00:00Z"},
    )
    writer.write_record(record)


def _command(folder: pathlib.Path, name: str, workers: int) -> list[str]:
    several = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    return [
        *(sys.executable, "-m", "data_pipelines.build", "--source=warc"),
        *(f"--input={folder / 'warc'}/*.warc.gz", f"--output={folder / name / _DATASET}"),
        *(several if workers > 1 else ()),
    ]


def _kill_half_way(folder: pathlib.Path, num_pages: int, workers: int) -> int:
    """Builds `killed`, with a SIGKILL in between; returns how many chunks were there by then."""
    shutil.rmtree(folder / "killed", ignore_errors=True)
    unfinished = folder / "killed" / f"{_DATASET}.unfinished"
    wanted = max(1, num_pages // _CHUNK // 2)
    command = _command(folder, "killed", workers)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        found = len(list(unfinished.glob("chunks/*.json")))
        if found >= wanted:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.2)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return found


if __name__ == "__main__":
    main()
