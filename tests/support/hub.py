"""A stand-in for the Hub on this machine: repositories of models in memory, behind the paths of its API that uploads and downloads need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import ModelCard


COMMIT = "0123456789abcdef0123456789abcdef01234567"

Files = dict[str, bytes]


class Answers(BaseHTTPRequestHandler):
    """What the Hub answers; every file goes into the commit itself, as small ones do there."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        """New repositories, checks of cards, and commits."""
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self._parts()
        match parts:
            case ["api", "repos", "create"]:
                wanted = json.loads(sent)
                repository = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
                self.server.repositories.setdefault(repository, {})
                self._json({"url": f"{self.server.url}/{repository}", "name": repository})
            case ["api", "validate-yaml"]:
                try:
                    ModelCard(json.loads(sent)["content"]).data.to_dict()
                except ValueError as error:
                    self._json({"errors": [{"message": str(error)}], "warnings": []}, status=400)
                else:
                    self._json({"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", _]:
                names = [file["path"] for file in json.loads(sent)["files"]]
                self._json(
                    {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
                )
            case ["api", "models", owner, name, "commit", _]:
                for line in map(json.loads, sent.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        self.server.repositories[f"{owner}/{name}"][line["value"]["path"]] = content
                self._json({"commitUrl": f"{self.server.url}/{owner}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
            case _:
                self._missing()

    def do_GET(self) -> None:
        """Files, and facts of a repository."""
        match self._parts():
            case ["api", "models", owner, name, *rest] if f"{owner}/{name}" in self.server.repositories:
                files = self.server.repositories[f"{owner}/{name}"]
                if rest[:1] == ["tree"]:
                    self._json(
                        [{"type": "file", "path": path, "size": len(files[path]), "oid": COMMIT} for path in files]
                    )
                else:
                    siblings = [{"rfilename": path} for path in files]
                    self._json({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings, "tags": []})
            case [owner, name, "resolve", _, *path] if "/".join(path) in self.server.repositories.get(
                f"{owner}/{name}", {}
            ):
                content = self.server.repositories[f"{owner}/{name}"]["/".join(path)]
                self._send(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
            case _:
                self._missing()

    do_HEAD = do_GET  # noqa: N815

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _missing(self) -> None:
        self._send(b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, status=404)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Its repositories by id, and where it listens."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, Files] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def local_hub() -> Iterator[Server]:
    """The server, for as long as the context lasts; programs find it by HF_ENDPOINT."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
