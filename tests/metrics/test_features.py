"""Feature files."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import FinishedRun
from support.records import record_files
from torch import Tensor, nn

from unlearnbench.errors import InvalidFileError, MetricError, PluginError
from unlearnbench.metrics import feature_parts
from unlearnbench.metrics import features as module
from unlearnbench.metrics.feature_writer import write_features
from unlearnbench.metrics.features import open_features
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.build import Network
from unlearnbench.models.classifier import keep_outputs
from unlearnbench.results.records.files import read_record

ATTRIBUTES = {
    "model": "abc",
    "dataset": "made-up",
    "dataset_revision": "1",
    "num_classes": 4,
    "forget_classes": [1, 3],
    "seed": 7,
}
AGAIN = "; run the manifest again, which makes it anew"
LIMITED = np.array([0, 5, 6, 11, 19])


def batches(count: int, seed: int) -> tuple[Batches, np.ndarray]:
    """Return images with labels 0, 1, 2, 3, 0, 1, ... and ids from 100 on."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 8, 8), generator=generator).to(torch.uint8)
    data = Batches(images, torch.arange(count) % 4, (0.5,), (0.3,), Augmentation(padding=2, horizontal_flip=True))
    return data, np.arange(100, 100 + count)


def network() -> nn.Module:
    return Network("digits_net", {"width": 4}, 4, (1, 8, 8)).build(0, "original").eval()


def classifier_inputs(model: nn.Module, data: Batches) -> tuple[Tensor, Tensor]:
    """Return the features and logits of all images, computed without the hook."""
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        found = model[:-1](data.plain(torch.arange(len(data))))
        return found, model[-1](found)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a feature file of 13 test and 20 training images, in batches of 4 and chunks of 6."""
    monkeypatch.setattr(feature_parts, "CHUNK_ROWS", 6)
    monkeypatch.setattr("unlearnbench.models.batches.MOST_IMAGES", 4)
    path = tmp_path / "features.h5"
    write_features(path, network(), batches(13, 1), batches(20, 2), LIMITED, ATTRIBUTES)
    return path


def test_the_layout_is_as_documented(written: Path) -> None:
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    with h5py.File(written) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: (item.shape, str(item.dtype))}) if isinstance(item, h5py.Dataset) else None
            )
        )
        attributes = {key: np.asarray(value).tolist() for key, value in file.attrs.items()}
    assert found == {
        "output_classes": ((4,), "int64"),
        "superclasses": ((0,), "int64"),
        "classifier/weight": ((4, 8), "float32"),
        "classifier/bias": ((4,), "float32"),
        "test/features": ((13, 8), "float32"),
        "test/logits": ((13, 4), "float32"),
        "test/labels": ((13,), "int64"),
        "test/ids": ((13,), "int64"),
        "limited/features": ((5, 8), "float32"),
        "limited/logits": ((5, 4), "float32"),
        "limited/labels": ((5,), "int64"),
        "limited/ids": ((5,), "int64"),
        **{f"{part}/stages/0": ((rows, 4), "float16") for part, rows in (("test", 13), ("limited", 5))},
        **{f"{part}/stages/1": ((rows, 8), "float16") for part, rows in (("test", 13), ("limited", 5))},
        "probe/features": ((12, 8), "float16"),
        "probe/labels": ((12,), "int64"),
        "probe/ids": ((12,), "int64"),
        **{f"prototypes/{source}/stages/0": ((4, 4), "float64") for source in ("full", "limited")},
        **{f"prototypes/{source}/stages/1": ((4, 8), "float64") for source in ("full", "limited")},
        "prototypes/full/sums": ((4, 8), "float64"),
        "prototypes/full/counts": ((4,), "int64"),
        "prototypes/limited/sums": ((4, 8), "float64"),
        "prototypes/limited/counts": ((4,), "int64"),
    }
    named = {"format": 3, "feature_dtype": "float32", "stages": [b"2", b"6", b"10"]}
    assert attributes == {**named, **ATTRIBUTES}


def test_features_are_the_input_of_the_classifier(written: Path) -> None:
    data, ids = batches(13, 1)
    expected, logits = classifier_inputs(network(), data)
    with open_features(written) as features:
        np.testing.assert_allclose(features.array("test/features"), expected.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(features.array("test/logits"), logits.numpy(), rtol=1e-5, atol=1e-6)
        assert features.array("test/labels").tolist() == data.labels.tolist()
        assert features.array("test/ids").tolist() == ids.tolist()
        assert features.output_classes.tolist() == [0, 1, 2, 3]
        assert (features.num_classes, features.forget_classes.tolist()) == (4, [1, 3])
        assert features.retain_classes.tolist() == [0, 2]


def test_the_limited_part_holds_the_limited_images(written: Path) -> None:
    data, ids = batches(20, 2)
    expected, logits = classifier_inputs(network(), data)
    with open_features(written) as features:
        np.testing.assert_allclose(features.array("limited/features"), expected[LIMITED].numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(features.array("limited/logits"), logits[LIMITED].numpy(), rtol=1e-5, atol=1e-6)
        assert features.array("limited/labels").tolist() == (LIMITED % 4).tolist()
        assert features.array("limited/ids").tolist() == ids[LIMITED].tolist()


def test_prototypes_are_the_means_of_their_class(written: Path) -> None:
    found = classifier_inputs(network(), batches(20, 2)[0])[0].numpy().astype(np.float64)
    labels = np.arange(20) % 4
    with open_features(written) as features:
        full = np.stack([found[labels == label].mean(axis=0) for label in range(4)])
        np.testing.assert_allclose(features.prototypes("full"), full, rtol=1e-5, atol=1e-6)
        few, few_labels = found[LIMITED], labels[LIMITED]
        counts = np.bincount(few_labels, minlength=4)
        assert features.array("prototypes/limited/counts").tolist() == counts.tolist() == [1, 1, 1, 2]
        limited = np.stack([few[few_labels == label].mean(axis=0) for label in range(4)])
        np.testing.assert_allclose(features.prototypes("limited"), limited, rtol=1e-5, atol=1e-6)


def test_stages_hold_the_pooled_outputs_of_their_modules(written: Path) -> None:
    model, (test, _), (train, _) = network(), batches(13, 1), batches(20, 2)
    assert isinstance(model, nn.Sequential)
    labels = np.arange(20) % 4
    with torch.no_grad(), open_features(written) as features:
        for number, end in enumerate((3, 7)):
            seen, trained = (
                model[:end](data.plain(torch.arange(len(data)))).mean((2, 3)).numpy() for data in (test, train)
            )
            every = np.arange(4)
            np.testing.assert_allclose(features.stage_rows("test", number, every), seen, rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(features.stage_rows("limited", number, every), trained[LIMITED], rtol=1e-3)
            means = np.stack([trained[labels == label].mean(axis=0) for label in every])
            np.testing.assert_allclose(features.prototypes("full", number), means, rtol=1e-5)
        assert np.array_equal(features.stage_rows("test", 2, every), features.rows("test/features", every))
        assert np.array_equal(features.prototypes("full", 2), features.prototypes("full"))


def test_the_probe_part_holds_images_that_no_method_sees(written: Path) -> None:
    data, ids = batches(20, 2)
    expected, _ = classifier_inputs(network(), data)
    with open_features(written) as features:
        found = features.array("probe/ids")
        assert not set(found) & set(ids[LIMITED])
        assert np.bincount(features.array("probe/labels")).tolist() == [3, 3, 3, 3]  # 13 test images allow 3 a class
        rows = features.array("probe/features")
        np.testing.assert_allclose(rows, expected[found - 100].numpy(), rtol=1e-3, atol=1e-6)


def test_without_images_outside_the_limited_data_there_are_none_for_probes(tmp_path: Path) -> None:
    path, limited = tmp_path / "features.h5", np.arange(17)  # the three left over are of three of the four classes
    write_features(path, network(), batches(13, 1), batches(20, 2), limited, ATTRIBUTES)
    with open_features(path) as features:
        assert features.array("probe/features").shape == (0, 8)
        assert features.array("limited/features").shape == (17, 8)


@pytest.mark.parametrize("classes", [[1], [3, 1], [0, 1, 2, 3]])
def test_rows_and_labels_are_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: list[int]) -> None:
    path = tmp_path / "features.h5"
    write_features(path, network(), batches(40, 1), batches(20, 2), LIMITED, ATTRIBUTES)
    monkeypatch.setattr(module, "CHUNK_ROWS", 1)  # read in steps of 16 rows
    wanted = np.isin(np.arange(40) % 4, classes)
    with open_features(path) as features:
        assert features.labels("test", np.array(classes)).tolist() == (np.arange(40) % 4)[wanted].tolist()
        rows = features.rows("test/features", np.array(classes))
        assert np.array_equal(rows, features.array("test/features")[wanted])
        assert rows.dtype == np.float32


def test_a_class_without_an_image_is_an_error(written: Path) -> None:
    with open_features(written) as features, pytest.raises(MetricError) as caught:
        features.labels("test", np.array([1, 4, 5]))
    assert str(caught.value) == "no test image of classes [4, 5]"


def test_a_model_that_lost_outputs_says_which_are_left(tmp_path: Path) -> None:
    model = network()
    keep_outputs(model, torch.tensor([0, 2]))
    path = tmp_path / "features.h5"
    write_features(path, model, batches(13, 1), batches(20, 2), LIMITED, ATTRIBUTES)
    with open_features(path) as features:
        assert features.output_classes.tolist() == [0, 2]
        assert features.array("test/logits").shape == (13, 2)


@pytest.mark.slow
def test_a_file_of_cifar_100_is_at_most_1_3_times_as_large_as_one_without_stages_and_probes(tmp_path: Path) -> None:
    """The widths of a ResNet-20 and the number of images of CIFAR-100, without the time that its layers take."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.MaxPool2d(2), nn.Conv2d(16, 32, 1), nn.MaxPool2d(2), nn.Conv2d(32, 64, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 100),
    )  # fmt: skip

    def images(count: int) -> tuple[Batches, np.ndarray]:
        shown = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8)
        return Batches(shown, torch.arange(count) % 100, (0.5,) * 3, (0.3,) * 3, Augmentation()), np.arange(count)

    path, attributes = tmp_path / "features.h5", {**ATTRIBUTES, "num_classes": 100}
    write_features(path, model, images(10_000), images(50_000), np.arange(5_000), attributes)
    with h5py.File(path) as file:
        assert [name.decode() for name in file.attrs["stages"]] == ["0", "2", "5"]
        added = [file["probe/features"], file["probe/labels"], file["probe/ids"]]
        added += [
            file[f"{group}/stages/{number}"]
            for group in ("test", "limited", "prototypes/full", "prototypes/limited")
            for number in range(2)
        ]
        size = sum(item.id.get_storage_size() for item in added)
    whole = path.stat().st_size
    assert whole <= 1.3 * (whole - size)


class Unusual(nn.Module):
    """A network that reuses the memory of its features, or uses its classifier in an unusual way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.classifier = nn.Linear(64, 4)
        self.register_buffer("room", torch.zeros(64, 64), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = images.flatten(1)
        if self.how == "never":
            return features[:, :4]
        if self.how == "tokens":
            logits: Tensor = self.classifier(torch.stack([features, features], dim=1)).mean(dim=1)
            return logits
        self.room[: len(features)] = features
        logits = self.classifier(self.room[: len(features)])
        return logits


def test_features_stay_where_a_network_uses_their_memory_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearnbench.models.batches.MOST_IMAGES", 4)
    data, path = batches(13, 1), tmp_path / "features.h5"
    write_features(path, Unusual("memory"), data, batches(20, 2), LIMITED, ATTRIBUTES)
    with open_features(path) as features:
        assert np.array_equal(features.array("test/features"), data[0].plain(torch.arange(13)).flatten(1).numpy())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("never", "Unusual never calls its classifier 'classifier'\n"),
        (
            "tokens",
            "Unusual gives its classifier 'classifier' (13, 128) numbers where 13 images have 64 features each\n",
        ),
    ],
)
def test_a_network_without_a_feature_for_each_image_is_told_so(tmp_path: Path, how: str, told: str) -> None:
    with pytest.raises(PluginError) as caught:
        write_features(tmp_path / "x.h5", Unusual(how), batches(13, 1), batches(20, 2), LIMITED, ATTRIBUTES)
    assert str(caught.value).startswith(told)


@pytest.mark.slow
def test_nothing_is_kept_of_images_that_are_not_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearnbench.models.batches.MOST_IMAGES", 4)
    tensors: list[int] = []

    def advance(images: int) -> None:
        tensors.append(sum(type(found) is Tensor for found in gc.get_objects()))

    write_features(tmp_path / "x.h5", network(), batches(13, 1), batches(160, 2), np.array([0]), ATTRIBUTES, advance)
    assert len(set(tensors[-36:])) == 1


def test_writing_counts_every_image_once(tmp_path: Path) -> None:
    seen: list[int] = []
    write_features(
        tmp_path / "features.h5", network(), batches(13, 1), batches(20, 2), LIMITED, ATTRIBUTES, seen.append
    )
    assert sum(seen) == 33


def test_writing_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write_features(tmp_path / "features.h5", model, batches(13, 1), batches(20, 2), LIMITED, ATTRIBUTES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught, open_features(tmp_path / "none.h5"):
        pass
    assert str(caught.value) == f"{tmp_path}/none.h5: no such file{AGAIN}"


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all"])
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.h5"
    path.write_bytes(content)
    with pytest.raises(InvalidFileError) as caught, open_features(path):
        pass
    assert str(caught.value) == f"{path}: truncated, or not an HDF5 file{AGAIN}"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(written: Path, share: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InvalidFileError) as caught, open_features(written):
        pass
    assert str(caught.value) == f"{written}: truncated, or not an HDF5 file{AGAIN}"


@pytest.mark.slow
def test_a_damaged_file_is_named(written: Path) -> None:
    whole = written.read_bytes()
    told = set()
    for start in range(64, len(whole) - 256, 256):
        written.write_bytes(whole[:start] + b"\xff" * 256 + whole[start + 256 :])
        try:
            with open_features(written):
                pass
        except InvalidFileError as error:
            told.add(str(error).removeprefix(f"{written}: ").partition(": ")[0])
    assert "damaged" in told


@pytest.mark.parametrize(
    ("attributes", "what"),
    [({}, "not a feature file"), ({"format": 2}, f"feature format 2, this version reads 3{AGAIN}")],
)
def test_an_hdf5_file_of_another_kind_is_named(tmp_path: Path, attributes: dict[str, Any], what: str) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
    with pytest.raises(InvalidFileError) as caught, open_features(path):
        pass
    assert str(caught.value) == f"{path}: {what}"


def test_weight_deletion_leaves_the_original_s_features_bit_for_bit(finished: FinishedRun) -> None:
    files = record_files(finished.output)
    for seed in (0, 1):
        original, deleted = (
            finished.output / read_record(files[f"{method}/seed-{seed}.json"]).files["features"].path
            for method in ("original", "wd")
        )
        with open_features(original) as first, open_features(deleted) as second:
            for name in (
                "test/features",
                "test/stages/0",
                "limited/features",
                "probe/features",
                "prototypes/full/sums",
            ):
                assert np.array_equal(first.array(name), second.array(name)), name
            assert first.stages == second.stages
            assert second.output_classes.tolist() == list(range(8))
            assert np.array_equal(first.array("test/logits")[:, :8], second.array("test/logits"))
