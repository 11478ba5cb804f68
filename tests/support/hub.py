"""The Hugging Face hub on this machine: its cache, written as its own library does, and a server like it."""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from support.tiny_data import WebServer

COMMIT = "0f1e" * 10

VIT = {
    **{"architectures": ["ViTForImageClassification"], "model_type": "vit", "image_size": 224, "patch_size": 4},
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "id2label": {str(label): f"label {label}" for label in range(10)},
}


def cache(home: Path, repository: str, files: dict[str, Any], revision: str = "main", commit: str = "0f1e") -> Path:
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


class HubServer(WebServer):
    """A server on 127.0.0.1 that answers as the Hugging Face hub does when files are downloaded.

    Attributes:
        repositories: Files of each repository, by its kind and name, such as `datasets/zoo/animals`; each has one
            commit, which is its branch `main`. Those of another branch go by `datasets/zoo/animals@BRANCH`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, dict[str, bytes]] = {}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0].removeprefix("/").removeprefix("api/")
        kind = "" if path.startswith(("models/", "datasets/")) else "models/"
        asked = re.fullmatch(r"(\w+/[^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)/?(.*))?", kind + path)
        branch = f"@{unquote(asked[3])}" if asked and asked[3] not in (None, "main", COMMIT) else ""
        files = self.repositories.get(f"{asked[1]}{branch}") if asked else None
        if asked is None or files is None:
            _say(request, 404, {"X-Error-Code": "RevisionNotFound" if branch else "RepoNotFound"})
        elif asked[2] == "resolve":
            content = files[unquote(asked[4])]
            self.send(request, content, {"ETag": f'"{_sha(content)}"', "X-Repo-Commit": COMMIT})
        else:
            content = _tree(files) if asked[2] == "tree" else _facts(asked[1], files)
            _say(request, 200, {"Content-Type": "application/json"}, content)


def _sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _facts(repository: str, files: dict[str, bytes]) -> bytes:
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    return json.dumps({"id": repository.partition("/")[2], "sha": COMMIT, "siblings": siblings}).encode()


def _tree(files: dict[str, bytes]) -> bytes:
    entries = (
        {"type": "file", "path": name, "size": len(content), "oid": _sha(content)} for name, content in files.items()
    )
    return json.dumps(list(entries)).encode()


def _say(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes = b"") -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)
