"""A server on this machine that speaks the part of the Hugging Face Hub's protocol that Reverie uses.

Repositories live in memory.  Tokens: `hf_writer` may do everything, `hf_reader` may read; others are refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"


@dataclass
class Repository:
    """files: path -> content; commits: the message of each; tags: name -> commit."""

    private: bool = False
    gated: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((self.commits, sorted(self.files.items()))).encode()).hexdigest()


class FakeHub:
    """The server.  repositories: (kind, OWNER/NAME) -> repository; fetched: paths that were downloaded, in order;
    broken: paths whose download is refused."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.fetched: list[str] = []
        self.broken: set[str] = set()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_DELETE(self) -> None:
        self._route()

    def _route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts == [""]:
            return self._answer({})
        if self._token() not in (None, WRITER, READER):
            return self._refuse(401, "Invalid credentials in Authorization header")
        match parts:
            case ["api", "repos", "create"]:
                return self._create(json.loads(self.body))
            case ["api", "validate-yaml"]:
                return self._answer({"errors": [], "warnings": []})
            case ["api", ("models" | "datasets") as kinds, owner, name, *rest]:
                return self._api(kinds[:-1], f"{owner}/{name}", rest)
            case ["datasets", owner, name, "resolve", _, *path]:
                return self._file("dataset", f"{owner}/{name}", "/".join(path))
            case [owner, name, "resolve", _, *path]:
                return self._file("model", f"{owner}/{name}", "/".join(path))
        return self._refuse(404, f"no such address: {self.path}")

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _create(self, asked: dict[str, Any]) -> None:
        if self._token() is None:
            return self._refuse(401, "Invalid username or password.")
        owner = asked.get("organization") or "somebody"
        if self._token() == READER or owner != "somebody":
            return self._refuse(403, f"You don't have the rights to create a repo under the namespace {owner!r}")
        key = (asked.get("type", "model"), f"{owner}/{asked['name']}")
        prefix = "" if key[0] == "model" else f"{key[0]}s/"
        url = f"{self.hub.endpoint}/{prefix}{key[1]}"
        if key in self.hub.repositories:
            return self._answer({"error": "You already created this repo", "url": url}, 409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repositories[key] = Repository(private)
        return self._answer({"url": url, "name": key[1]})

    def _find(self, kind: str, name: str) -> Repository | None:
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and self._token() is None):
            self._refuse(401 if self._token() is None else 404, "Repository not found", "RepoNotFound")
            return None
        return found

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self._find(kind, name)
        if repository is None:
            return None
        if self.command != "GET" and self._token() != WRITER:
            return self._refuse(403, "Forbidden: you must use a token with write access")
        match rest:
            case [] | ["revision", _]:
                if rest and rest[1] not in ("main", repository.sha, *repository.tags):
                    return self._refuse(404, f"Invalid rev id: {rest[1]}", "RevisionNotFound")
                files = [{"rfilename": path} for path in repository.files]
                return self._answer({"id": name, "sha": repository.sha, "siblings": files, "private": False})
            case ["tree", _]:
                files = [
                    {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                    for path, content in repository.files.items()
                ]
                return self._answer(files)
            case ["preupload", _]:
                asked = [file["path"] for file in json.loads(self.body)["files"]]
                told = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in asked]
                return self._answer({"files": told})
            case ["commit", _]:
                return self._commit(kind, name, repository, [json.loads(line) for line in self.body.splitlines()])
            case ["tag", tag]:
                if self.command == "DELETE":
                    if tag not in repository.tags:
                        return self._refuse(404, "no such tag", "RevisionNotFound")
                    del repository.tags[tag]
                else:
                    repository.tags[json.loads(self.body)["tag"]] = tag
                return self._answer({})
        return self._refuse(404, f"no such address: {self.path}")

    def _commit(self, kind: str, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        url = f"{self.hub.endpoint}/{'' if kind == 'model' else 'datasets/'}{name}/commit/{repository.sha}"
        return self._answer({"commitUrl": url, "commitOid": repository.sha, "pullRequestUrl": None})

    def _file(self, kind: str, name: str, path: str) -> None:
        repository = self._find(kind, name)
        if repository is None:
            return None
        if repository.gated:
            return self._refuse(403, "Access to this repository is restricted", "GatedRepo")
        if path not in repository.files:
            return self._refuse(404, f"no {path}", "EntryNotFound")
        if self.command == "GET":
            if path in self.hub.broken:
                return self._refuse(403, "the storage refuses")
            self.hub.fetched.append(path)
        content = repository.files[path]
        headers = {"X-Repo-Commit": repository.sha, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        return self._answer(content, headers=headers)

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._answer({"error": message}, status, headers)

    def _answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
