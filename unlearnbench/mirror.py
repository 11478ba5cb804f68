"""Output folders elsewhere, such as `s3://bucket/runs`, and the folder on this machine that mirrors one.

At the address, the files of the store lie under their hashes, and an entry says which of them it consists of. An entry
is created last and only once, so that of two machines that make the same thing one is first and the other takes its.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import platformdirs

from unlearnbench.documents import read_json
from unlearnbench.errors import InvalidFileError, StoreError, UnwritableError, WrongUseError, first_line, os_reason
from unlearnbench.paths import below

ORIGIN = "origin.json"
ENTRY = "entry.json"
# What was last seen of each record, by which a changed one is noticed.
_SEEN = ".seen.json"
# A checkpoint is copied at most this often.
CHECKPOINT_SECONDS = 60.0
INSTALL = {"s3": "pip install 'unlearnbench[s3]'"}


def is_address(text: str) -> bool:
    """Return whether a text is an address and not a path."""
    return "://" in text


def mirror(address: str) -> Path:
    """Return the folder on this machine that mirrors an output folder elsewhere, which is made if it is missing.

    It lies in the user's cache folder, or in the one that UNLEARNBENCH_CACHE names, and can be removed at any time.

    Args:
        address: Address in the form that fsspec reads.

    Raises:
        StoreError: If the folder cannot be made.
    """
    address = address.rstrip("/")
    folder = _place(address)
    try:
        (folder / "records").mkdir(parents=True, exist_ok=True)
        if not (folder / ORIGIN).is_file():
            # Another process may read it at any moment.
            written = folder / f".{ORIGIN}.{os.getpid()}"
            written.write_text(json.dumps({"address": address}) + "\n", encoding="utf-8")
            written.replace(folder / ORIGIN)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror}\n  Name another folder in UNLEARNBENCH_CACHE"
        ) from error
    return folder


def _mirrors() -> Path:
    chosen = os.environ.get("UNLEARNBENCH_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("unlearnbench")) / "mirrors"


def _place(address: str) -> Path:
    return _mirrors() / hashlib.sha256(address.encode()).hexdigest()[:16]


def origin(folder: Path) -> Remote | None:
    """Return what a folder mirrors; None for an output folder of its own.

    Only a folder that `mirror` has made says so: one from elsewhere would have its address read and written with this
    user's credentials.
    """
    path = folder / ORIGIN
    if not path.is_file() or folder.resolve().parent != _mirrors().resolve():
        return None
    try:
        address = str(read_json(path)["address"])
    except (InvalidFileError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: does not say which address the folder mirrors\n  Remove the folder") from error
    return _remote(address) if folder.resolve() == _place(address).resolve() else None


def shown(folder: Path) -> str:
    """Return the address of the folder that a folder mirrors, or the path of any other."""
    remote = origin(folder)
    return remote.address if remote else str(folder)


@cache
def _remote(address: str) -> Remote:
    return Remote(address)


class Remote:
    """An output folder at an address of fsspec.

    Args:
        address: The address.

    Raises:
        StoreError: If fsspec has no such file system, it lacks what it needs, or it cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._entries: set[str] | None = None
        self._listing = threading.Lock()
        kind = address.partition("://")[0]
        try:
            self._files, self._root = import_module("fsspec.core").url_to_fs(address, **_settings(kind))
        except (ImportError, ValueError) as error:
            mend = INSTALL.get(kind, f"Install what fsspec names for {kind}://")
            raise StoreError(f"{address}: cannot be used: {first_line(error)}\n  {mend}") from error
        # Some file systems connect at once.
        except OSError as error:
            raise StoreError(f"{address}: cannot be reached: {os_reason(error)}") from error

    @contextlib.contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Say in one line that something at the address failed.

        Raises:
            UnwritableError: If anything within the context fails.
        """
        try:
            yield
        except (UnwritableError, FileExistsError):
            raise
        # Each file system raises exceptions of its own library.
        except Exception as error:
            raise UnwritableError(
                f"{self.address}: {what} failed: {first_line(error)}\n"
                "  Mend that, then run the same command again: it goes on from what is done"
            ) from error

    def has(self, kind: str, identity: str) -> bool:
        """Return whether there is an entry of the store."""
        name = f"{kind}/{identity}"
        with self._listing, self._reaching("reading"):
            if self._entries is None:
                found = self._files.find(f"{self._root}/store")
                self._entries = {"/".join(path.split("/")[-3:-1]) for path in found if path.endswith(f"/{ENTRY}")}
            # Another machine may have made it since.
            if name not in self._entries and self._files.exists(self._entry(kind, identity)):
                self._entries.add(name)
            return name in self._entries

    def fetch(self, folder: Path) -> None:
        """Copy an entry of the store to its folder `KIND/ID` on this machine, which does not exist.

        Raises:
            InvalidFileError: If the entry names what cannot be one of its files.
        """
        kind, identity = folder.parent.name, folder.name
        partial = folder.with_name(f".{identity}.{os.getpid()}.{threading.get_ident()}.fetched")
        try:
            with self._reaching("reading"):
                partial.mkdir(parents=True, exist_ok=True)
                text = self._files.cat_file(self._entry(kind, identity))
                try:
                    files = {name: str(stamp["sha256"]) for name, stamp in json.loads(text)["files"].items()}
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InvalidFileError(f"{self.address}: the entry {kind}/{identity} is damaged") from error
                for name, digest in files.items():
                    self._files.get_file(self._object(digest), str(below(partial, name)))
                (partial / ENTRY).write_bytes(text)
                with contextlib.suppress(OSError):
                    # Another process of this machine may have been first.
                    partial.rename(folder)
        finally:
            # What was not taken is not left behind.
            shutil.rmtree(partial, ignore_errors=True)

    def offer(self, folder: Path, *, replace: bool = False) -> bool:
        """Copy an entry of the store to the address, and return whether it is now the one there.

        Args:
            folder: Folder `KIND/ID` of the entry.
            replace: Whether an entry that is there is replaced, because it is damaged.
        """
        kind, identity = folder.parent.name, folder.name
        text = (folder / ENTRY).read_bytes()
        with self._reaching("writing"):
            for name, stamp in json.loads(text)["files"].items():
                place = self._object(stamp["sha256"])
                if replace or not self._files.exists(place):
                    self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(folder / name), place)
            place = self._entry(kind, identity)
            self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            try:
                self._files.pipe_file(place, text, mode="overwrite" if replace else "create")
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def checkpointing(self, path: Path) -> Iterator[None]:
        """Bring a checkpoint that another machine left, and while the context lasts copy each new one to the address.

        A machine that is taken away in the middle of a training then costs no more than the last minutes.

        Args:
            path: Path `KIND/ID.partial/FILE` of the checkpoint on this machine.
        """
        kind, name = path.parent.parent.name, path.parent.name.partition(".")[0]
        place = f"{self._root}/checkpoints/{kind}/{name}"
        with self._reaching("reading"):
            if not path.exists() and self._files.exists(place):
                coming = path.with_name(f"{path.name}.coming")
                self._files.get_file(place, str(coming))
                coming.replace(path)
        over = threading.Event()
        copied = path.stat().st_mtime_ns if path.exists() else 0
        thread = threading.Thread(target=self._copy_changes, args=(path, place, over, copied), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        # It is needed no longer; one that stays is dropped by whoever finds it.
        with contextlib.suppress(Exception):
            self._files.rm_file(place)

    def _copy_changes(self, path: Path, place: str, over: threading.Event, copied: int) -> None:
        """Copy a file to the address whenever its time is not that of the last copy, until it is over."""
        while not over.wait(CHECKPOINT_SECONDS):
            # Without the copy only time is lost, and an address that cannot be written is told when it is over.
            with contextlib.suppress(Exception):
                changed = path.stat().st_mtime_ns
                if changed != copied:
                    self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(path), place)
                    copied = changed

    def publish(self, folder: Path, path: Path) -> None:
        """Copy a file of the mirror to its place at the address, over what is there."""
        place = f"{self._root}/{path.relative_to(folder).as_posix()}"
        with self._reaching("writing"):
            self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(place, path.read_bytes())

    def pull_records(self, folder: Path) -> None:
        """Copy all records that are new or were changed to the mirror, and remove those that are gone."""
        seen = self.seen(folder)
        start = f"{self._root}/records"
        with self._reaching("reading"):
            self._files.invalidate_cache()
            listed = self._files.find(start, detail=True)
            found = {path[len(self._root) + 1 :]: _state(facts) for path, facts in listed.items()}
            for place, state in found.items():
                target = below(folder, place)
                if seen.get(place) != state or not target.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(self._files.cat_file(f"{self._root}/{place}"))
            for place in seen.keys() - found.keys():
                below(folder, place).unlink(missing_ok=True)
            (folder / _SEEN).write_text(json.dumps(found), encoding="utf-8")

    def seen(self, folder: Path) -> dict[str, Any]:
        """Return the state of each record when `pull_records` last looked, by its path."""
        path = folder / _SEEN
        try:
            return dict(read_json(path)) if path.is_file() else {}
        except (InvalidFileError, TypeError, ValueError):
            return {}

    def _entry(self, kind: str, identity: str) -> str:
        return f"{self._root}/store/{kind}/{identity}/{ENTRY}"

    def _object(self, digest: str) -> str:
        return f"{self._root}/objects/{digest[:2]}/{digest}"


def _settings(kind: str) -> dict[str, Any]:
    # Another machine may write at any moment, so that no listing is kept.
    return {"use_listings_cache": False} if kind == "s3" else {}


def _state(facts: dict[str, Any]) -> str:
    """Return what changes with a file, as far as its file system tells."""
    keys = ("size", "ETag", "mtime", "LastModified", "created", "updated")
    return "|".join(str(facts[key]) for key in keys if key in facts)


def local_folder(text: str | Path) -> Path:
    """Return the folder on this machine for a path or an address; the default of an option is a path already."""
    text = str(text)
    return mirror(text) if is_address(text) else Path(text)


def at_hand(text: str | Path) -> Path:
    """Return the folder on this machine for a path or an address, with the records that are there now.

    Raises:
        StoreError: If the address cannot be read.
        WrongUseError: If the text is empty, as that of a variable of the shell without a value is.
    """
    if text == "":
        raise WrongUseError("an empty path of an output folder\n  Give a folder, or an address: s3://bucket/runs")
    folder = local_folder(text)
    remote = origin(folder)
    if remote is not None:
        remote.pull_records(folder)
    return folder


def publish_unseen(folder: Path, paths: Iterable[Path]) -> None:
    """Copy records of a mirror that were not at its address when it was last read, as after a failed `publish`."""
    remote = origin(folder)
    if remote is None:
        return
    seen = remote.seen(folder)
    for path in paths:
        if path.relative_to(folder).as_posix() not in seen:
            remote.publish(folder, path)


def publish(path: Path) -> None:
    """Copy a file to the address that its folder mirrors, if it lies in a mirror."""
    for folder in path.parents:
        remote = origin(folder)
        if remote is not None:
            remote.publish(folder, path)
            return
