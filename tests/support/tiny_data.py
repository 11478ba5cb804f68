"""Data sets in the real formats with only a few images, and a web server on this machine."""

from __future__ import annotations

import functools
import io
import pickle
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unlearnbench.datasets.add import OFFER
from unlearnbench.datasets.builtin import imagenet1k

CIFAR_CLASSES = ("apple", "bear", "cup", "worm")


def pixels(height: int, width: int, *seed: int) -> np.ndarray:
    """Return random colours, (H, W, 3), which are the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, height: int, width: int, *seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, *seed)).save(path)
    return path


def png(height: int = 4, width: int = 4, *seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(height, width, *seed)).save(buffer, "png")
    return buffer.getvalue()


def class_tree(folder: Path, counts: dict[str, int], side: int = 8, salt: int = 0) -> Path:
    """Write images as `folder/CLASS/NAME.png`."""
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(folder / name / f"{name}_{number:03}.png", side, side, salt, label, number)
    return folder


def cifar_folders(folder: Path, train: int = 6, test: int = 2, classes: tuple[str, ...] = CIFAR_CLASSES) -> Path:
    class_tree(folder / "train", dict.fromkeys(classes, train), 32, salt=1)
    class_tree(folder / "test", dict.fromkeys(classes, test), 32, salt=2)
    return folder


def cifar_official(folder: Path, train: int = 6, test: int = 2) -> Path:
    """Write the same images as `cifar_folders` as the official pickles, in a different order."""
    folder.mkdir(parents=True)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CIFAR_CLASSES)}, protocol=2))
    for part, count, salt in (("train", train, 1), ("test", test, 2)):
        rows = [(label, number) for number in range(count) for label in reversed(range(len(CIFAR_CLASSES)))]
        images = [pixels(32, 32, salt, label, number).transpose(2, 0, 1).ravel() for label, number in rows]
        names = [f"{CIFAR_CLASSES[label]}_{number:03}.png".encode() for label, number in rows]
        content = {b"data": np.stack(images), b"fine_labels": [label for label, _ in rows], b"filenames": names}
        (folder / part).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def cub_folder(
    folder: Path, classes: int = 24, train: int = 3, test: int = 1, sides: tuple[int, int] = (20, 30)
) -> Path:
    """Write the files of CUB_200_2011, with the lines of each list in a different order."""
    images = []
    for label in range(1, classes + 1):
        for number in range(train + test):
            path = f"{label:03}.Bird_{label}/Bird_{label}_{number}.png"
            write_image(folder / "images" / path, *sides, label, number)
            images.append((len(images) + 1, path, label, int(number < train)))
    mixed = np.random.default_rng(0)

    def lines(column: int) -> str:
        return "".join(f"{images[row][0]} {images[row][column]}\n" for row in mixed.permutation(len(images)))

    (folder / "images.txt").write_text(lines(1))
    (folder / "image_class_labels.txt").write_text(lines(2))
    (folder / "train_test_split.txt").write_text(lines(3))
    names = [f"{label} {label:03}.Bird_{label}\n" for label in range(1, classes + 1)]
    (folder / "classes.txt").write_text("".join(reversed(names)))
    return folder


def imagenet_tree(folder: Path, classes: int = 4, train: int = 3, test: int = 1) -> Path:
    """Write images as `train/WNID/*.JPEG` and `val/WNID/*.JPEG`."""
    for part, count in (("train", train), ("val", test)):
        for label in range(classes):
            for number in range(count):
                wnid = f"n{label:08}"
                write_image(folder / part / wnid / f"{wnid}_{part}_{number}.JPEG", 40, 50, label, number, count)
    return folder


def small_side(reader: Any, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the squares that a reader offers smaller."""
    monkeypatch.setattr(reader, OFFER, replace(getattr(reader, OFFER), side=side))


def small_imagenet(
    monkeypatch: pytest.MonkeyPatch, classes: int = 4, train: int = 3, test: int = 1, side: int = 36
) -> None:
    """Let ImageNet's reader take a few classes as complete, and keep images small."""
    counts = {"classes": classes, "train": classes * train, "test": classes * test}
    monkeypatch.setattr(imagenet1k, "find", functools.partial(imagenet1k.find, **counts))
    small_side(imagenet1k.imagenet1k, side, monkeypatch)


class WebServer:
    """A server on 127.0.0.1 that can cut connections.

    Attributes:
        files: Content of each file, by path.
        cuts: Numbers of bytes after which each of the next answers is cut off.
        ranges: Range header of each request; None if it had none.
        resumable: Whether the server honours Range.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.resumable = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.files.get(request.path)
        if content is None:
            request.send_error(404)
            return
        self.send(request, content, {})

    def send(self, request: BaseHTTPRequestHandler, content: bytes, headers: dict[str, str]) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumable else 0
        if start and start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        for name, value in {"Content-Length": str(len(content) - start), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        end = start + self.cuts.pop(0) if self.cuts else None
        request.wfile.write(content[start:end])
