"""Stores on loopback: a web server with ranges and faults, and a hub with commits."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Shelf:
    """What a server holds, and how it answers: what is asked is noted, with its range."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    faults: list[int] = field(default_factory=list)  # statuses of the next GETs of ranges; 0: cut
    before_get: Callable[[], None] = lambda: None
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: Shelf

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        path, asked = unquote(urlsplit(self.path).path), self.headers.get("Range", "")
        self.shelf.asked.append((self.command, self.path, asked))
        if has_body and asked:
            self.shelf.before_get()
            if self.shelf.faults:
                self._fail(self.shelf.faults.pop(0))
                return
        data = self.shelf.files.get(path)
        if data is None:
            self._fail(404)
            return
        part, status = data, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked):
            part = data[int(found[1]) : int(found[2]) + 1 if found[2] else None]
            status = 206
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            start = int(found[1]) if found else 0
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        if has_body:
            self.wfile.write(part)

    def _fail(self, status: int) -> None:
        self.close_connection = True
        if status:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **state: Any) -> Iterator[str]:
    """A server of a handler on loopback; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def web_server() -> Iterator[Shelf]:
    """A web server of files, empty at first."""
    shelf = Shelf()
    with serving(_Handler, shelf=shelf) as address:
        shelf.address = address
        yield shelf


@dataclass
class Hub:
    """Commits of one data set, and the branch main, which may move."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    main: str = ""
    token: str = ""  # that the hub wants, if any
    asked: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        """Adds a commit and moves main to it."""
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[digest], self.main = files, digest
        return digest


class _HubHandler(_Handler):
    hub: Hub

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        wanted = parse_qs(self.rfile.read(size).decode())["paths"]
        revision = self.path.rpartition("/")[2]
        listed = [one for one in self._listed(revision) if one["path"] in wanted]
        self._json(listed)

    def _answer(self, *, has_body: bool) -> None:
        self.hub.asked.append(self.path)
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._fail(401)
            return
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch("/api/datasets/org/set(?:/revision/(.+))?", path):
            commit = self._commit(found[1] or "main")
            if commit is None:
                self._error(404, "RevisionNotFound")
                return
            self._json({"_id": "1", "id": "org/set", "sha": commit, "siblings": []})
            return
        if found := re.match("/api/datasets/org/set/tree/([^/]+)", path):
            folder = path[found.end() :].strip("/")
            is_deep = "recursive=true" in self.path.lower()
            below = [one for one in self._listed(found[1]) if one["path"].startswith(folder)]
            self._json([one for one in below if is_deep or _folder(one["path"]) == folder])
            return
        if found := re.fullmatch("/datasets/org/set/resolve/([^/]+)/(.+)", path):
            commit = self._commit(found[1]) or ""
            self.shelf.files = {path: self.hub.commits[commit][found[2]]}
            super()._answer(has_body=has_body)
            return
        self._error(404, "RepoNotFound")

    def _commit(self, revision: str) -> str | None:
        revision = self.hub.main if revision == "main" else revision
        return revision if revision in self.hub.commits else None

    def _listed(self, revision: str) -> list[dict[str, Any]]:
        files = self.hub.commits[self._commit(revision) or ""]
        folders = {_folder(name) for name in files} - {""}
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ] + [{"type": "directory", "path": name, "size": 0, "oid": "0"} for name in folders]

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


@contextmanager
def hub_server() -> Iterator[tuple[Hub, str]]:
    """A hub of one data set, org/set; and its address."""
    hub = Hub()
    with serving(_HubHandler, hub=hub, shelf=Shelf()) as address:
        yield hub, address
