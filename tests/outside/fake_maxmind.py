"""FAKE: MaxMind's update service, as much of it as geoipupdate asks for. Called with a port and a folder."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ACCOUNT = "Basic MTIzNDU2OmEgbGljZW5jZSBrZXk="  # 123456 and "a licence key"
PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])


class Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.headers["Authorization"] != ACCOUNT:
            return self.reply(401, b'{"code": "AUTHORIZATION_INVALID", "error": "fake"}')
        if url.path == "/geoip/updates/metadata":
            edition = parse_qs(url.query)["edition_id"][0]
            digest = hashlib.md5((FOLDER / f"{edition}.mmdb").read_bytes()).hexdigest()  # noqa: S324  the protocol's
            found = {"edition_id": edition, "date": "2026-11-20", "md5": digest}
            return self.reply(200, json.dumps({"databases": [found]}).encode())
        edition = url.path.removeprefix("/geoip/databases/").removesuffix("/download")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            tar.add(FOLDER / f"{edition}.mmdb", f"{edition}_20261120/{edition}.mmdb")
        return self.reply(200, archive.getvalue())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", PORT), Service).serve_forever()
