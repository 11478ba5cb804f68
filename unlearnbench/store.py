"""The store: folders named by content, shared by all manifests of an output folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearnbench.documents import read_json
from unlearnbench.errors import InvalidFileError, StoreError, os_reason
from unlearnbench.files import file_hash, write_json, writing
from unlearnbench.mirror import ENTRY, origin
from unlearnbench.paths import below

CHECKPOINT = "checkpoint.pt"

Say = Callable[[str], None]

LOCK_SECONDS = 5.0
# File systems without locks answer with one of these.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO, errno.EINVAL}


def lock_fault(folder: Path) -> str:
    """Return why processes cannot exclude each other by locks in an existing folder, or "" if they can."""
    place = folder / ".locks-are-tried"
    lock = FileLock(place)
    try:
        # Whoever tries the same at this moment has the lock for no longer than this takes.
        lock.acquire(timeout=LOCK_SECONDS)
        lock.release()
    except (NotImplementedError, Timeout):
        return "none is ever granted"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return os_reason(error)
    finally:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)
    return ""


class Store:
    """Results that take work to make: models, features, relevance tables.

    An entry is a folder `KIND/ID` with an `entry.json` that holds the kind and the ID, facts, the hash of each file,
    and a hash of all that. Each is compared when a store first reads the entry. It is made under a temporary name and
    then renamed, by one process at a time; a second process waits and reads it. The store of a folder that mirrors
    another one elsewhere takes entries from there when they are first asked for, and copies there what it makes.

    Args:
        folder: Folder of the store, created if missing.
        say: Callback that receives a line when the user should know something, such as a wait or a damaged file.
        create: Whether to create the folder and check that it can be written and has locks; False only reads.

    Raises:
        StoreError: If the folder cannot be written, or has no locks.
    """

    def __init__(self, folder: Path, say: Say = lambda message: None, *, create: bool = True) -> None:
        self.folder = folder
        self.say = say
        self._checked: dict[Path, list[tuple[str, int, int]]] = {}
        self._remote = origin(folder.parent)
        self._damaged_there: set[Path] = set()
        if create:
            self._check_writable()

    def _check_writable(self) -> None:
        folder = self.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fault = lock_fault(folder)
        except OSError as error:
            if folder.is_file():
                raise StoreError(
                    f"{folder}: a file where the output folder keeps its store\n"
                    "  Move it away, or choose another folder with --output"
                ) from error
            raise StoreError(
                f"{folder.parent}: the output folder cannot be written: {os_reason(error)}\n"
                "  Choose another with --output"
            ) from error
        if fault:
            raise StoreError(
                f"{folder.parent}: the file system of the output folder has no locks: {fault}\n"
                "  Choose a folder on a local disk with --output, or have it mounted with locks"
            )

    def entry(self, kind: str, identity: str) -> Path:
        """Return the folder of an entry, whether it exists or not; one that is elsewhere is copied from there."""
        folder = self.folder / kind / identity
        if self._is_elsewhere(folder):
            self._fetch(folder)
        return folder

    def _is_elsewhere(self, folder: Path) -> bool:
        """Return whether an entry is at the address that the store's folder mirrors, and not here."""
        if self._remote is None or folder.is_dir() or folder in self._damaged_there:
            return False
        return self._remote.has(folder.parent.name, folder.name)

    def _fetch(self, folder: Path) -> None:
        """Copy an entry from elsewhere; a damaged one is reported and does not count."""
        assert self._remote is not None
        try:
            self._remote.fetch(folder)
            damage = _damage(folder)
        except InvalidFileError as error:
            damage = str(error)
        if damage:
            self.say(f"{self._remote.address}: {damage}; it is made again")
            self._damaged_there.add(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def has(self, kind: str, identity: str) -> bool:
        """Return whether an entry exists and is complete; a damaged one is reported."""
        folder = self.folder / kind / identity
        if not folder.is_dir():
            # It is copied, and its content looked at, when it is asked for.
            return self._is_elsewhere(folder)
        found = _listing(folder)
        if self._checked.get(folder) == found:
            return True
        damage = _damage(folder)
        if damage:
            self.say(f"{damage}; it is made again")
        else:
            self._checked[folder] = found
        return not damage

    def facts(self, kind: str, identity: str) -> dict[str, Any]:
        """Return the facts that the entry's builder gave.

        Raises:
            InvalidFileError: If the entry is missing, damaged or another one.
        """
        facts: dict[str, Any] = _read_entry(self.entry(kind, identity))["facts"]
        return facts

    def get(self, kind: str, identity: str, build: Callable[[Path], dict[str, Any]]) -> Path:
        """Return the folder of an entry, which is made now if it is missing or damaged.

        Args:
            kind: Kind of the entry, which names the subfolder.
            identity: Name of the entry.
            build: Function that puts the files into the folder it is given, which may hold a checkpoint of an
                interrupted call, and returns facts to keep.
        """
        folder = self.entry(kind, identity)
        if self.has(kind, identity):
            if self._remote is not None and not self._remote.has(kind, identity):
                # The run that made it could not reach the address.
                self._offer(folder)
            return folder
        with self._alone(folder):
            if folder.is_dir() and _damage(folder) and self._remote is not None:
                with writing(folder):
                    shutil.rmtree(folder)
                self.entry(kind, identity)
            if not folder.is_dir() or _damage(folder):
                self._make(folder, build)
        self._checked[folder] = _listing(folder)
        return folder

    @contextlib.contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Wait until no other run makes an entry, and say so if one does."""
        lock = FileLock(f"{folder}.lock")
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.say(f"another run is making {folder.parent.name}/{folder.name}; waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def begun(self, kind: str, identity: str) -> Iterator[Path | None]:
        """Hold an entry while something is done towards it, and give the path of the checkpoint that `get` begins with.

        Args:
            kind: Kind of the entry.
            identity: Name of the entry.

        Returns:
            A context whose value is None if the entry is there.
        """
        folder = self.entry(kind, identity)
        partial = folder.with_name(f"{folder.name}.partial")
        with self._alone(folder):
            if self.has(kind, identity):
                yield None
                return
            with writing(partial):
                partial.mkdir(exist_ok=True)
            yield partial / CHECKPOINT

    def _make(self, folder: Path, build: Callable[[Path], dict[str, Any]]) -> None:
        partial = folder.with_name(f"{folder.name}.partial")
        with writing(partial):
            partial.mkdir(exist_ok=True)
            for leftover in partial.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.name != CHECKPOINT:
                    leftover.unlink()
        remote = self._remote
        with remote.checkpointing(partial / CHECKPOINT) if remote else contextlib.nullcontext():
            facts = build(partial)
            with writing(folder):
                ours = [file for file in sorted(partial.iterdir()) if file.name not in (ENTRY, CHECKPOINT)]
                content = {
                    "kind": folder.parent.name,
                    "identity": folder.name,
                    "facts": facts,
                    "files": {file.name: _stamp(file) for file in ours},
                }
                write_json(partial / ENTRY, {**content, "sha256": _content_hash(content)})
                if folder.is_dir():
                    shutil.rmtree(folder)
                partial.rename(folder)
                # Until here it is what a training that could not be kept goes on from.
                (folder / CHECKPOINT).unlink(missing_ok=True)
            self._offer(folder)

    def _offer(self, folder: Path) -> None:
        """Copy an entry to the address that the store's folder mirrors, if there is one."""
        if self._remote is not None and not self._remote.offer(folder, replace=folder in self._damaged_there):
            # Another machine was first, and everything else is to rest on the same.
            shutil.rmtree(folder)
            self._remote.fetch(folder)


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of each file of an entry, by which a store sees that it has read the entry before."""
    try:
        found = [(file.name, file.stat()) for file in folder.iterdir()]
    except OSError:
        return []
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def _stamp(file: Path) -> dict[str, Any]:
    return {"sha256": file_hash(file), "size": file.stat().st_size}


def _content_hash(content: dict[str, Any]) -> str:
    # A file holds the keys of tables as text, by which they are then sorted.
    values = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read_entry(folder: Path) -> dict[str, Any]:
    """Return what an entry's own file says.

    Raises:
        InvalidFileError: If the file cannot be read, was changed, or is that of another entry.
    """
    path = folder / ENTRY
    try:
        content = read_json(path)
    except InvalidFileError as error:
        raise InvalidFileError(f"{path} is missing or not readable") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("facts", "files")):
        raise InvalidFileError(f"{path} is missing or not readable")
    # An entry of the version before holds these two alone, so that it can be taken for another.
    if content.keys() != {"facts", "files"}:
        told = content.pop("sha256", None)
        if told != _content_hash(content):
            raise InvalidFileError(f"{path} is damaged: its content is not what was written")
        if (content.get("kind"), content.get("identity")) != (folder.parent.name, folder.name):
            raise InvalidFileError(f"{path} is that of {content.get('kind')}/{content.get('identity')}")
    return content


def _damage(folder: Path) -> str:
    """Return what is wrong with an entry, or "" if nothing is."""
    try:
        files = _read_entry(folder)["files"]
        for name, stamp in files.items():
            file = below(folder, name)
            if not file.is_file():
                return f"{file} is missing"
            if file.stat().st_size != stamp["size"]:
                return f"{file} is damaged: {file.stat().st_size} bytes, not {stamp['size']}"
            if file_hash(file) != stamp["sha256"]:
                return f"{file} is damaged: its content is not what was written"
    except InvalidFileError as error:
        return str(error)
    except (KeyError, TypeError):
        return f"{folder / ENTRY} is missing or not readable"
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {os_reason(error)}"
    return ""


def content_id(*parts: Any) -> str:
    """Return 16 hexadecimal digits that depend on every JSON value in `parts` and on nothing else."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
