r"""Records a second of a dataset that answers late, as a bucket does: with reading ahead, without.

    python -m benchmarks.bucket --latency_ms=50

A server on this machine speaks as much of Cloud Storage's protocol as reading needs, and lets every
request wait. The pictures are those of `benchmarks.pipeline`, one a pair. As texts the same records
are read and nothing is decoded, so that the reading itself is the limit.
"""

import asyncio
import json
import multiprocessing
import os
import pathlib
import re
import socket
import tempfile
import time
import urllib.parse
from unittest import mock

from benchmarks.pipeline import SIZES, Pages, photograph
from data_pipelines import commands, records
from data_pipelines.benchmark import rates
from data_pipelines.building.tfds_writer import build
from data_pipelines.index import write_indexes
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer

_ADDRESS = "gs://bucket/pairs/1.0.0"
_NUM_PAIRS, _NUM_PICTURES, _BATCH = 2000, 60, 32
_REQUEST = re.compile(r"GET /storage/v1/b/bucket/o/?([^? ]*)")
_RANGE = re.compile(r"\r\nrange: bytes=(\d+)-(\d+)", re.IGNORECASE)


def serve(folder: str, port: int, latency_s: float) -> None:
    """Answers with the files of `folder` as if they lay at `_ADDRESS`, until the process ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(latency_s)
                writer.write(_response(pathlib.Path(folder), head.decode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    asyncio.run(run())


def _response(folder: pathlib.Path, head: str) -> bytes:
    prefix = f"{_ADDRESS.removeprefix('gs://bucket/')}/"
    name = urllib.parse.unquote(_REQUEST.match(head)[1]).removeprefix(prefix)
    status, more = "200 OK", ""
    if not name:
        files = (file for file in folder.rglob("*") if file.is_file())
        items = [{"name": f"{prefix}{file.relative_to(folder)}"} for file in files]
        body = json.dumps({"items": items}).encode()
    elif not (folder / name).is_file():
        status, body = "404 Not Found", b""
    elif span := _RANGE.search(head):
        start, stop = int(span[1]), int(span[2]) + 1
        with open(folder / name, "rb") as file:
            body = os.pread(file.fileno(), stop - start, start)
        size = (folder / name).stat().st_size
        status = "206 Partial Content"
        more = f"Content-Range: bytes {start}-{start + len(body) - 1}/{size}\r\n"
    else:
        body = (folder / name).read_bytes()
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def pairs() -> list[records.Document]:
    """Photographs with short captions."""
    pictures = [photograph(SIZES[i % len(SIZES)], i) for i in range(_NUM_PICTURES)]
    about = {"licence": "Apache-2.0", "source": "benchmarks.bucket"}
    return [
        records.Document(
            f"pair-{i:05d}", f"photograph {i}", (0,), (pictures[i % len(pictures)],), about
        )
        for i in range(_NUM_PAIRS)
    ]


def measured(data_dir: str, kind: str, seconds: float, workers: int) -> float:
    """Records a second."""
    config = StreamConfig("pairs", data_dir, kind, _BATCH, num_tokens=32, num_workers=workers)
    stream = Stream(config, Tokenizer.byte_level(), preprocessing=ImagePreprocessing())
    rate = rates(stream, seconds)[0]
    stream.close()
    return rate


def _wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return


def main() -> None:
    """The command; prints records a second of each way to read."""
    parser = commands.Parser(prog="python -m benchmarks.bucket", description=__doc__)
    parser.add_argument("--latency_ms", type=float, default=50.0, help="of every request")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--num_workers", type=int, default=2, help="threads that decode")
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        builder = Pages(pairs(), data_dir=folder)
        build(builder)
        here = str(builder.data_dir)
        write_indexes(here)
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(here, port, args.latency_ms / 1000), daemon=True
        )
        server.start()
        _wait_for(port)
        print(f"{args.num_workers} threads, {args.latency_ms:g} ms a request")
        for kind in ("pair", "text"):
            asked = kind, args.seconds, args.num_workers
            print(f"{kind}, this machine's disk: {measured(here, *asked):.0f} records/s")
            print(f"{kind}, bucket, read ahead: {measured(_ADDRESS, *asked):.0f} records/s")
            with mock.patch.object(RecordIndex, "in_bucket", False):
                print(f"{kind}, bucket, not ahead: {measured(_ADDRESS, *asked):.0f} records/s")
        server.terminate()


if __name__ == "__main__":
    commands.run(main)
