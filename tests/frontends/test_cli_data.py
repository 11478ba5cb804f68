from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from support.commands import cli
from support.manifests import ARCHITECTURE, manifest_text, write_manifest
from support.plugins import fake_distribution
from support.tiny_data import WebServer, cifar_folders, cifar_official, class_tree

from unlearnbench.datasets import catalog
from unlearnbench.datasets.download import Download
from unlearnbench.errors import DatasetError
from unlearnbench.models import weights as weights_module

pytest_plugins = ["support.data_fixtures"]


@pytest.fixture
def cifar_online(
    data: Path, small_cifar: None, server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put a tiny CIFAR-100 archive on the local server."""
    cifar_official(tmp_path / "cifar-100-python")
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "cifar-100-python", "cifar-100-python")
    content = (tmp_path / "cifar.tar.gz").read_bytes()
    server.files["/cifar-100-python.tar.gz"] = content
    url = server.url("/cifar-100-python.tar.gz")
    download = Download(url, len(content), "md5", hashlib.md5(content).hexdigest())
    monkeypatch.setitem(catalog.DATASET_DOWNLOADS, "cifar100", (download,))


def cifar_manifest(folder: Path) -> Path:
    text = manifest_text(
        dataset='[dataset]\nname = "cifar100"',
        architecture=ARCHITECTURE,
        problem='[problem]\nforget_classes = ["cup"]\nlimited_share = 0.5',
    )
    return write_manifest(folder, text)


def test_fetch_downloads_adds_and_removes_the_archive(cifar_online: None, data: Path) -> None:
    done = cli("data", "fetch", "cifar100")
    assert done.code == 0, done.err
    assert done.out.startswith(
        "cifar100: 4 classes (apple, bear, cup and 1 more), 24 training and 8 test images of 3x32x32, revision "
    )
    assert list((data / "downloads").iterdir()) == []


def test_a_run_says_what_is_missing_and_downloads_nothing(
    cifar_online: None, data: Path, tmp_path: Path, server: WebServer
) -> None:
    path = cifar_manifest(tmp_path)
    done = cli("run", path, "-o", tmp_path / "runs")
    size = catalog.size_text(catalog.download_bytes("cifar100"))
    assert done.code == 1
    assert done.err.strip() == (
        f"{path}:3: dataset.name: cifar100 is not on this machine: nothing at {data}/cifar100 "
        f"({size} to fetch, 184 MB on disk)\n"
        "  Fetch it: unlearnbench data fetch cifar100, or run with --download; or add your own copy: "
        "unlearnbench data add cifar100 PATH..."
    )
    assert server.ranges == []


@pytest.mark.slow
def test_run_with_download_fetches_first_and_only_once(
    cifar_online: None, data: Path, tmp_path: Path, server: WebServer
) -> None:
    for _ in range(2):
        done = cli("run", cifar_manifest(tmp_path), "-o", tmp_path / "runs", "--device", "cpu", "--download")
        assert done.code == 0, done.err
    assert server.ranges == [None]


def test_a_download_with_a_wrong_checksum_adds_nothing(cifar_online: None, data: Path, server: WebServer) -> None:
    server.files["/cifar-100-python.tar.gz"] = b"something else" * 1000
    done = cli("data", "fetch", "cifar100")
    assert done.code == 2
    assert "wrong checksum: md5 " in done.err
    assert not (data / "cifar100").exists()
    assert list((data / "downloads").iterdir()) == []


def test_a_download_that_arrived_is_not_fetched_again_after_a_failed_add(
    cifar_online: None, data: Path, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlearnbench.datasets import add as adding

    with monkeypatch.context() as patch:
        patch.setattr(adding, "pack", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert cli("data", "fetch", "cifar100").code == 2
    assert cli("data", "fetch", "cifar100").code == 0
    assert server.ranges == [None]


def test_list_shows_what_is_here_and_how_to_get_the_rest(data: Path, small_cifar: None, tmp_path: Path) -> None:
    assert cli("data", "add", "cifar100", cifar_folders(tmp_path / "given")).code == 0
    flowers = class_tree(tmp_path / "flowers", {"rose": 5, "tulip": 5})
    done = cli("data", "add", "image_folder", flowers, "--as", "my-flowers", "--side", "16", "--test-share", "0.4")
    assert done.out.startswith(
        "my-flowers: 2 classes (rose, tulip), 6 training and 4 test images of 3x16x16, revision "
    )
    found = {row["name"]: row for row in cli("data", "list", "--json").json}
    assert found["cifar100"]["there"]
    assert found["cifar100"]["train_images"] == 24
    assert found["image_folder my-flowers"]["classes"] == 2
    assert found["image_folder my-flowers"]["shape"] == [3, 16, 16]
    assert found["image_folder my-flowers"]["class_names"] == ["rose", "tulip"]
    assert found["digits"]["there"]
    assert not found["cub200"]["there"]
    assert found["cub200"]["note"] == "1.2 GB to fetch: unlearnbench data fetch cub200"
    assert found["imagenet1k"]["note"] == "get it yourself, then: unlearnbench data add imagenet1k PATH"
    assert (
        found["weights resnet50 IMAGENET1K_V1"]["note"]
        == "103 MB to fetch: unlearnbench data fetch weights resnet50 IMAGENET1K_V1"
    )
    table = cli("data", "list")
    assert table.code == 0
    assert "my-flowers" in table.out
    assert "3x16x16" in table.out
    assert "rose, tulip" in table.out


@pytest.mark.slow
def test_an_image_folder_is_named_by_its_source_in_a_manifest(data: Path, tmp_path: Path) -> None:
    cli("data", "add", "image_folder", class_tree(tmp_path / "flowers", {"rose": 9, "tulip": 9}), "--as", "my-flowers")
    text = manifest_text(
        dataset='[dataset]\nname = "image_folder"\noptions = { source = "my-flowers" }',
        problem='[problem]\nforget_classes = ["rose"]\nlimited_share = 0.5',
    )
    done = cli("run", write_manifest(tmp_path, text), "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err


def test_a_data_set_of_other_content_is_replaced_only_on_request(data: Path, tmp_path: Path) -> None:
    first = class_tree(tmp_path / "first", {"rose": 6, "tulip": 6})
    other = class_tree(tmp_path / "other", {"oak": 6, "beech": 6})
    before, same, refused = (
        cli("data", "add", "image_folder", folder, "--as", "mine") for folder in (first, first, other)
    )
    after = cli("data", "add", "image_folder", other, "--as", "mine", "--replace")
    assert (before.code, same.code, refused.code, after.code) == (0, 0, 2, 0)
    again = f"unlearnbench data add image_folder {other} --as"
    assert refused.err.splitlines()[-3:] == [
        f"image_folder: other images were added as mine (revision {before.out.split()[-1]})",
        f"  Replace them: {again} mine --replace",
        f"  Or add these beside them: {again} NAME",
    ]
    assert "replaced" not in before.err + same.err
    old, new = (done.out.split()[-1] for done in (before, after))
    assert f"mine: replaced revision {old} by {new}\n" in after.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fetch", "imagenet1k"],
            "imagenet1k may not be passed on\n  Get it from image-net.org, then: unlearnbench data add imagenet1k PATH",
        ),
        (
            ["fetch", "cifar"],
            "'cifar' cannot be fetched\n  Did you mean 'cifar10'? Valid: cifar10, cifar100, cub200, "
            "fashion_mnist, flowers102, food101, pets, svhn, weights",
        ),
        (
            ["fetch", "weights", "resnet50"],
            "unlearnbench data fetch weights takes ARCHITECTURE and NAME\n  See: unlearnbench data list",
        ),
        (["fetch", "cifar100", "now"], "now: only `weights` takes more than a name"),
    ],
)
def test_wrong_words_are_explained(data: Path, arguments: list[str], message: str) -> None:
    done = cli("data", *arguments)
    assert (done.code, done.err.strip()) == (2, message)


def test_a_data_folder_that_cannot_be_read_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is forced to fail, because tests may run as root, whom file modes do not stop."""
    is_file, access = Path.is_file, os.access

    def closed(path: Path) -> bool:
        if data in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", closed)
    monkeypatch.setattr(os, "access", lambda path, mode: path != data and access(path, mode))
    message = f"{data}: cannot be read: Permission denied\n  Set UNLEARNBENCH_DATA to another folder\n"
    done = cli("data", "list")
    assert (done.code, done.out, done.err) == (2, "", message)
    manifest = cifar_manifest(tmp_path)
    done = cli("validate", manifest)
    assert (done.code, done.err) == (1, f"{manifest}:3: dataset.name: {message}")
    with pytest.raises(DatasetError, match="Set UNLEARNBENCH_DATA to another folder"):
        weights_module.cached_weights(weights_module.WEIGHTS["resnet20", "pytorchcv"])


def test_a_data_set_is_removed_by_its_name(data: Path, small_cifar: None, tmp_path: Path) -> None:
    assert cli("data", "add", "cifar100", cifar_folders(tmp_path / "given")).code == 0
    for name in ("mine", "other"):
        flowers = class_tree(tmp_path / name, {"rose": 5, "tulip": 5})
        assert cli("data", "add", "image_folder", flowers, "--as", name).code == 0
    done = cli("data", "remove", "cifar100")
    assert (done.code, done.out) == (0, "removed: cifar100\n")
    assert not (data / "cifar100").exists()
    assert cli("data", "remove", "image_folder", "--as", "mine").out == "removed: image_folder mine\n"
    assert [entry.name for entry in (data / "image_folder").glob("[!.]*")] == ["other"]
    # The images themselves are the user's.
    assert len(list((tmp_path / "mine").rglob("*.png"))) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar100"], "cifar100 is not on this machine: nothing at {0}/cifar100"),
        (
            ["image_folder", "--as", "mine"],
            "image_folder mine is not on this machine: nothing at {0}/image_folder/mine",
        ),
        (["image_folder"], "image_folder: there can be several; name one with --as NAME"),
        (["image_folder", "--as", "../x"], "--as ../x: a name is letters, digits, dots, dashes and underscores"),
        (["digits"], "'digits' was not added\n"),
    ],
)
def test_what_is_not_there_cannot_be_removed(data: Path, arguments: list[str], message: str) -> None:
    done = cli("data", "remove", *arguments)
    assert done.code == 2
    assert done.err.startswith(message.format(data))


def test_a_data_set_that_cannot_be_imported_does_not_hide_the_others(data: Path, search_path: Path) -> None:
    fake_distribution(search_path, "sick", {"datasets": {"sick_set": "sick:read"}}, {"sick": "raise ValueError('x')"})
    listed = {row["name"]: row for row in cli("data", "list", "--json").json}
    assert listed["digits"]["there"]
    assert "ValueError" in listed["sick_set"]["note"]
    refused = cli("data", "add", "no_such_set", data)
    assert refused.err.startswith("'no_such_set' cannot be added")
    assert "cifar100" in refused.err
