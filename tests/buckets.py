"""A bucket on this machine: what speaks Cloud Storage's protocol, for code that reads gs://.

TensorFlow's client, which etils takes where TensorFlow is installed, knows no other address than
Google's; here etils takes gcsfs, as it does without TensorFlow and in commands of `experiments`.
"""

import contextlib
import http
import os
import re
import socket
from collections.abc import Iterator
from unittest import mock

_ADDRESSES = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")
_RANGE = re.compile(r"bytes (\d+)-(-?\d+)/")
_MOVE = r"/storage/v1/b/(?P<bucket_name>[^/]+)/o/(?P<object_id>.+)/moveTo/o/(?P<dest_object_id>.+)"
_NOT_ASKED = {"NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@contextlib.contextmanager
def serve(bucket: str) -> Iterator[str]:
    """An empty bucket, `gs://NAME`, until the block ends."""
    from gcp_storage_emulator import server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = _NOT_ASKED | {name: f"http://127.0.0.1:{port}" for name in _ADDRESSES}
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    with (
        _completed(),
        _generations(),
        mock.patch("etils.epath.gpath._is_tf_installed", return_value=False),
        server.create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket),
    ):
        try:
            yield f"gs://{bucket}"
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@contextlib.contextmanager
def _completed() -> Iterator[None]:
    """Files can be moved, ranges behind a file's end are refused, and many may ask at once."""
    from gcp_storage_emulator import server

    class Response(server.Response):
        def close(self):
            start, end = _RANGE.match(self._headers.get("Content-Range", "bytes 0-0/")).groups()
            if int(start) > int(end):
                self.status = http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            super().close()

    def move(request, response, storage) -> None:
        request.params["dest_bucket_name"] = request.params["bucket_name"]
        server.objects.copy(request, response, storage)
        server.objects.delete(request, response, storage)

    with (
        mock.patch.object(server, "Response", Response),
        mock.patch.object(server, "HANDLERS", ((_MOVE, {"POST": move}), *server.HANDLERS)),
        mock.patch.object(server.server.HTTPServer, "request_queue_size", 1024),
    ):
        yield


@contextlib.contextmanager
def _generations() -> Iterator[None]:
    """A file is told with its generation, and written only over the one that the writer has read.

    Without, arrays that tensorstore writes together would lose one another.
    """
    from gcp_storage_emulator.handlers import objects

    download, upload = objects.download, objects._media_upload

    def generation(request, storage, name: str) -> str:
        try:
            return storage.get_file_obj(request.params["bucket_name"], name)["generation"]
        except objects.NotFound:
            return "0"

    def told(request, response, storage, *args, **kwargs):
        download(request, response, storage, *args, **kwargs)
        found = generation(request, storage, request.params["object_id"])
        response["x-goog-generation"] = found

    def over_what_was_read(request, response, storage):
        (wanted,) = request.query.get("ifGenerationMatch", [None])
        if wanted not in (None, generation(request, storage, request.query["name"][0])):
            response.status = http.HTTPStatus.PRECONDITION_FAILED
        else:
            upload(request, response, storage)

    with (
        mock.patch.object(objects, "download", told),
        mock.patch.object(objects, "_media_upload", over_what_was_read),
    ):
        yield
