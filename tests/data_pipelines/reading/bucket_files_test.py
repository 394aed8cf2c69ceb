"""What a bucket's server can answer, and what is made of it."""

import http.server
import threading

import pytest
import tensorstore as ts

from data_pipelines.reading import bucket_files
from tests import buckets


@pytest.fixture
def answers(monkeypatch):
    """`answers.codes`: statuses that are given one after the other, the last again and again."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        codes, asked = [200], 0

        def do_GET(self):
            Handler.asked += 1
            code = Handler.codes.pop(0) if len(Handler.codes) > 1 else Handler.codes[0]
            body = b"as said" if code == 200 else b'{"error": {"message": "of no use"}}'
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    retries = {"max_retries": 3, "initial_delay": "1ms", "max_delay": "2ms"}
    monkeypatch.setattr(bucket_files, "_context", ts.Context({"gcs_request_retries": retries}))
    yield Handler
    server.shutdown()
    server.server_close()


def test_what_passes_is_waited_for_and_what_does_not_is_said_at_once(answers):
    answers.codes = [503, 429, 500, 200]
    assert bucket_files.read("gs://bucket/a") == b"as said"
    for code, kind in ((403, PermissionError), (401, PermissionError), (404, FileNotFoundError)):
        answers.codes, answers.asked = [code], 0
        with pytest.raises(kind, match=r"^gs://bucket/data/a: .*[^\]]$"):
            bucket_files.read("gs://bucket/data/a")
        assert answers.asked == 1
    answers.codes = [416]
    with pytest.raises(EOFError):
        bucket_files.read("gs://bucket/a", 10, 20)
    assert bucket_files.exists("gs://bucket/a")  # an empty one
    answers.codes, answers.asked = [503], 0
    with pytest.raises(OSError, match="All 3 retry attempts failed: of no use"):
        bucket_files.exists("gs://bucket/a")
    assert answers.asked == 4
    answers.codes = [412]
    with pytest.raises(OSError, match="makes no sense"):
        bucket_files.read("gs://bucket/a")
    answers.codes = [403]
    with pytest.raises(PermissionError):
        bucket_files.exists("gs://bucket/a")


def test_files_are_written_read_by_ranges_and_listed():
    with buckets.serve("bucket") as bucket:
        for name in ("x/a", "x/b/c%20 d", "xy", "x0", "y"):
            bucket_files.write(f"{bucket}/{name}", name.encode())
        assert bucket_files.read(f"{bucket}/x/b/c%20 d") == b"x/b/c%20 d"
        assert bucket_files.read(f"{bucket}/x/b/c%20 d", 2, 5) == b"b/c"
        with pytest.raises(EOFError):
            bucket_files.read(f"{bucket}/y", 0, 2)
        assert bucket_files.names(f"{bucket}/x") == bucket_files.names(f"{bucket}/x/")
        assert bucket_files.names(f"{bucket}/x") == ["a", "b/c%20 d"]
        assert bucket_files.names(bucket) == ["x/a", "x/b/c%20 d", "x0", "xy", "y"]
        assert not bucket_files.exists(f"{bucket}/x")
    with pytest.raises(OSError, match=r"^gs://B!/a: .*bucket"):
        bucket_files.read("gs://B!/a")
    assert not bucket_files.is_address("a/b")
