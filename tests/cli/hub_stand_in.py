"""A stand-in of the Hugging Face hub: what `create_repo` and `upload_folder` ask for over HTTP, and no more."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a token"
PUBLIC = "someone/open"
"""A repository that is public, whatever one asks for."""


class Hub:
    """One repository, kept in memory."""

    def __init__(self) -> None:
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        """By SHA-256: what came through large file storage."""
        self.stored_large: set[str] = set()
        """Files of the repository that came so."""
        self.asked: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path.startswith("/storage/"):
            if method == "PUT":
                assert hashlib.sha256(body).hexdigest() == path.removeprefix("/storage/")
                self.large[path.removeprefix("/storage/")] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            self.created = json.loads(body)
            name = f"{self.created.get('organization', 'someone')}/{self.created['name']}"
            return 200, {"url": f"{self.url}/{name}", "name": name}
        if path.startswith("/api/models/someone/") and path.count("/") == 4:
            name = path.removeprefix("/api/models/")
            return 200, {"id": name, "private": name != PUBLIC, "siblings": [], "tags": []}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if "/tree/main" in path:
            return 200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in self.files.items()]
        if path.endswith("/preupload/main"):
            return 200, {"files": [_mode(file["path"]) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._slot(entry) for entry in json.loads(body)["objects"]]}
        if path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
            return 200, {"commitUrl": f"{self.url}/someone/tiny/commit/{'1' * 40}", "commitOid": "1" * 40}
        return 404, {"error": f"the stand-in knows no {method} {path}"}

    def _slot(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "actions": {"upload": {"href": f"{self.url}/storage/{entry['oid']}", "header": {}}}}

    def _commit(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            value = record["value"]
            if record["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
                self.stored_large.add(value["path"])
            elif record["key"] == "deletedFile":
                del self.files[value["path"]]


def _mode(path: str) -> dict[str, Any]:
    return {
        "path": path, "uploadMode": "lfs" if path.endswith(".safetensors") else "regular", "shouldIgnore": False,
        "oid": None,
    }  # fmt: skip


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(length)
            path = self.path.partition("?")[0]
            status, content = hub.answer(self.command, path, body, self.headers.get("Authorization", ""))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
