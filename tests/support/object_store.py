"""A server of so much of the S3 protocol as pyarrow's own client needs to list, read and write objects."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class ObjectStore(ThreadingHTTPServer):
    """`objects` by `bucket/key`. `sent` counts the bytes of objects that were answered with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.objects: dict[str, bytes] = {}
        self.unfinished: dict[str, dict[int, bytes]] = {}
        self.sent = 0

    @property
    def address(self) -> str:
        """As a source's `s3_endpoint_override` has it."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server on a free port of this machine."""
    with ObjectStore() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectStore

    def do_HEAD(self) -> None:
        self._answer(self.server.objects.get(self._key()), only_head=True)

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        options = parse_qs(asked.query, keep_blank_values=True)
        if "list-type" in options:
            self._list(unquote(asked.path).strip("/"), options)
            return
        data = self.server.objects.get(self._key())
        self._answer(data)

    def do_POST(self) -> None:
        """Begins a write in parts, or ends one."""
        options = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        self._body()
        if "uploads" in options:
            xml = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        else:
            xml = "<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>"
            parts = self.server.unfinished.pop(self._key())
            self.server.objects[self._key()] = b"".join(parts[number] for number in sorted(parts))
        self._send(200, xml.encode(), {"Content-Type": "application/xml"})

    def do_PUT(self) -> None:
        options = parse_qs(urlsplit(self.path).query)
        if "partNumber" in options:
            self.server.unfinished.setdefault(self._key(), {})[int(options["partNumber"][0])] = self._body()
        else:
            self.server.objects[self._key()] = self._body()
        self._send(200, b"", {"ETag": '"0"'})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if "aws-chunked" not in self.headers.get("content-encoding", ""):
            return body
        framed, data = io.BytesIO(body), b""
        while (size := int(framed.readline().split(b";")[0], 16)) > 0:
            data += framed.read(size)
            framed.readline()
        return data

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def log_message(self, *_: object) -> None:
        """Tests stay quiet."""

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _answer(self, data: bytes | None, only_head: bool = False) -> None:
        if data is None:
            self._send(404, b"" if only_head else b"<Error><Code>NoSuchKey</Code></Error>", {})
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        headers = {"ETag": '"0"', "Last-Modified": formatdate(0, usegmt=True), "Accept-Ranges": "bytes"}
        status, part = 200, data
        if asked is not None:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            status, part = 206, data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        if not only_head:
            self.server.sent += len(part)
        self._send(status, part, headers, only_head)

    def _list(self, bucket: str, options: dict[str, list[str]]) -> None:
        prefix, delimiter = options.get("prefix", [""])[0], options.get("delimiter", [""])[0]
        keys = [key.removeprefix(f"{bucket}/") for key in sorted(self.server.objects) if key.startswith(f"{bucket}/")]
        keys = [key for key in keys if key.startswith(prefix)]
        folders = {
            prefix + key[len(prefix) :].split("/")[0] + "/" for key in keys if delimiter and "/" in key[len(prefix) :]
        }
        files = [key for key in keys if not any(key.startswith(folder) for folder in folders)]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>0</ETag><Size>{len(self.server.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in files
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
        body = (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>'
            f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(files) + len(folders)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"
        )
        self._send(200, body.encode(), {"Content-Type": "application/xml"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], only_head: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not only_head:
            self.wfile.write(body)
