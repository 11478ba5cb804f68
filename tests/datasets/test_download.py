from __future__ import annotations

import hashlib
import re
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from support.tiny_data import WebServer

from unlearnbench import machine
from unlearnbench.datasets.download import Download, fetch
from unlearnbench.errors import DatasetError
from unlearnbench.models.weights import PublishedWeights, fetch_weights

pytest_plugins = ["support.data_fixtures"]

CONTENT = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearnbench.datasets.download.PAUSE_SECONDS", 0.0)


def served(server: WebServer, content: bytes = CONTENT) -> Download:
    server.files["/set.tgz"] = content
    return Download(server.url("/set.tgz"), len(content), "md5", hashlib.md5(content).hexdigest())


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


def test_a_file_arrives_whole_and_progress_ends_at_its_size(server: WebServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(served(server), tmp_path / "new", lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "new" / "set.tgz"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in path.parent.iterdir()] == ["set.tgz"]


def test_a_whole_file_is_not_fetched_again(server: WebServer, tmp_path: Path) -> None:
    download = served(server)
    fetch(download, tmp_path)
    fetch(download, tmp_path)
    assert server.ranges == [None]


def test_a_cut_connection_is_taken_up_where_it_broke(server: WebServer, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(served(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_from_what_is_there(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(CONTENT[:1000])
    assert fetch(served(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_part_that_is_all_there_is_only_checked(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "set.tgz.part").write_bytes(CONTENT)
    assert fetch(served(server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_all_again(server: WebServer, tmp_path: Path) -> None:
    server.resumable = False
    server.cuts = [300_000]
    assert fetch(served(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_connection_that_always_breaks_ends_and_keeps_what_came(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearnbench.datasets.download.ATTEMPTS", 3)
    server.cuts = [1000] * 3
    download = served(server)
    expected = (
        f"{download.url}: the connection failed: it ended after 3,000 of 1,024,000 bytes\n"
        "  The same command goes on from where it stopped"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        fetch(download, tmp_path)
    assert (tmp_path / "set.tgz.part").stat().st_size == 3000
    assert fetch(download, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file_and_names_both(server: WebServer, tmp_path: Path) -> None:
    download = served(server)
    server.files["/set.tgz"] = CONTENT[::-1]
    expected = (
        f"{download.url}: wrong checksum: md5 {hashlib.md5(CONTENT[::-1]).hexdigest()}, not {download.checksum}\n"
        "  The file was removed. Fetch it again; if it happens twice, the publisher has changed the file"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        fetch(download, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_written(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage(10**6, 10**6 - 500_000, 500_000))
    expected = (
        f"set.tgz needs 1.0 MB at {tmp_path}, where 500 kB are free\n"
        "  Make room, or set UNLEARNBENCH_DATA to a folder on a larger disk"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        fetch(served(server), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_named(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearnbench.datasets.download._fetch_rest", full)
    with pytest.raises(
        DatasetError, match=whole(f"{tmp_path}/set.tgz.part: cannot be written: No space left on device")
    ):
        fetch(served(server), tmp_path)


def test_a_missing_page_is_named(server: WebServer, tmp_path: Path) -> None:
    download = Download(server.url("/gone.tgz"), None, "md5", "0")
    with pytest.raises(DatasetError, match=whole(f"{download.url}: the server answers 404 Not Found")):
        fetch(download, tmp_path)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    download = Download("http://127.0.0.1:9/x.tgz", None, "md5", "0")
    expected = (
        f"{download.url}: the connection failed: [Errno 111] Connection refused\n"
        "  The same command goes on from where it stopped"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        fetch(download, tmp_path)


def zipped(server: WebServer, tmp_path: Path, name: str = "net.pth") -> PublishedWeights:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, CONTENT)
    server.files["/net.pth.zip"] = (tmp_path / "x.zip").read_bytes()
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    return PublishedWeights(server.url("/net.pth.zip"), "net.pth", "sha1", sha1, len(CONTENT), 10)


def test_weights_in_an_archive_are_taken_out_and_checked(server: WebServer, data: Path, tmp_path: Path) -> None:
    path = fetch_weights(zipped(server, tmp_path))
    assert path == data / "weights" / "net.pth"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["net.pth"]


def test_an_archive_without_the_weights_is_refused(server: WebServer, data: Path, tmp_path: Path) -> None:
    published = zipped(server, tmp_path, "other.pth")
    with pytest.raises(DatasetError, match=f"^{re.escape(published.url)}: not an archive with net.pth: "):
        fetch_weights(published)
    assert list((data / "weights").iterdir()) == []


def test_weights_whose_hash_starts_with_the_published_digits_are_taken(server: WebServer, data: Path) -> None:
    server.files["/net-1234.pth"] = CONTENT
    digits = hashlib.sha256(CONTENT).hexdigest()[:8]
    published = PublishedWeights(server.url("/net-1234.pth"), "net-1234.pth", "sha256", digits, len(CONTENT), 10)
    assert fetch_weights(published).read_bytes() == CONTENT
