"""Figures 1, 3 and 4 of the paper, from manifest to picture, by the manifests' twins on the digits."""

from __future__ import annotations

import csv
import re
import shutil
import statistics
import struct
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import cli
from support.feature_files import feature_file, one_hot
from support.paths import REPOSITORY
from support.records import with_changes, write_records

from unlearnbench.datasets.dataset import Dataset, open_dataset
from unlearnbench.metrics.gradcam import class_activation_maps, entropy, shift
from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.models.build import Network
from unlearnbench.models.classifier import load_network
from unlearnbench.results.figures.paper import attention_maps, relevance_curves
from unlearnbench.results.figures.paper.attention_maps import chosen_pictures
from unlearnbench.results.figures.paper.relevance_curves import _protocols
from unlearnbench.results.figures.style import COLUMN, DOTS_PER_INCH
from unlearnbench.results.records.load import load_records
from unlearnbench.results.records.record import Record
from unlearnbench.results.report.report import FIGURES, write_report
from unlearnbench.results.rows import Row

pytestmark = pytest.mark.slow

PAPER = REPOSITORY / "manifests" / "paper"
TWINS = ("figure1-relevance-digits", "figure3-augmentations-digits", "figure4-cam-digits")
AUGMENTATIONS = ["grayscale", "vertical_flip", "rotation", "affine"]
SHARES = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4]
NEW_FIGURES = {
    "figure1-relevance-digits-zeroed",
    "figure3-augmentations-digits-zeroed",
    "figure4-cam-digits-attention",
    "figure4-cam-digits-attention-maps",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the three twins into one output folder and write their report."""
    folder = tmp_path_factory.mktemp("paper-figures") / "runs"
    done = cli("run", *(PAPER / f"{name}.toml" for name in TWINS), "-o", folder, "--device", "cpu")
    assert done.code == 0, done.err
    assert report(folder, folder / "report") == ()
    return folder


def report(runs: Path, folder: Path) -> tuple[str, ...]:
    """Write a report with the figures that are tested here, and return why some are missing."""
    return write_report(runs, folder, figures=(relevance_curves.drawings, attention_maps.drawings)).not_drawn


def rows(runs: Path, name: str, **wanted: str) -> list[dict[str, str]]:
    """Return the rows of a figure's CSV file that have these values."""
    with (runs / "report" / "figures" / f"{name}.csv").open() as stream:
        return [row for row in csv.DictReader(stream) if all(row[key] == value for key, value in wanted.items())]


def records_of(runs: Path, manifest: str, method: str) -> list[Record]:
    return [r for r in load_records(runs) if r.manifest_name == manifest and r.method.label == method]


def value(record: Record, name: str, **options: Any) -> float | None:
    """Return the value of the only metric with this name and these options."""
    found = [
        metric
        for metric in record.metrics.values()
        if metric.name == name and all(metric.options[key] == given for key, given in options.items())
    ]
    assert len(found) == 1
    return found[0].value


def test_the_pictures_are_as_wide_as_a_column_with_vector_form_and_numbers(runs: Path) -> None:
    folder = runs / "report" / "figures"
    assert {path.stem for path in folder.glob("*.png")} == NEW_FIGURES
    assert {relevance_curves.drawings, attention_maps.drawings} < set(FIGURES)
    for name in NEW_FIGURES:
        width, height = struct.unpack(">II", (folder / f"{name}.png").read_bytes()[16:24])
        assert width == round(COLUMN * DOTS_PER_INCH)
        assert 300 < height < 1200
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
        assert rows(runs, name)
        assert f"![{name}](figures/{name}.png)" in (runs / "report" / "README.md").read_text()


@pytest.mark.parametrize("order", ["high", "low", "random"])
def test_figure_1_shows_the_means_of_the_records(runs: Path, order: str) -> None:
    originals = records_of(runs, TWINS[0], "original")
    shown = rows(runs, "figure1-relevance-digits-zeroed", order=order)

    assert len(originals) == 2
    assert [float(row["share"]) for row in shown] == SHARES
    assert {row["augmentation"] for row in shown} == {"grayscale"}
    for row in shown[1:]:
        found = [
            value(record, "zeroed_accuracy", share=float(row["share"]), order=order) or 0.0 for record in originals
        ]
        assert float(row["mean"]) == pytest.approx(statistics.fmean(found))
        assert (float(row["lowest seed"]), float(row["highest seed"])) == (min(found), max(found))
    # Every curve starts at the plain accuracy of the classes, digits 8 and 9 with 43 and 45 test images.
    plain = [value(record, "zeroed_accuracy", share=0.0) or 0.0 for record in originals]
    assert float(shown[0]["mean"]) == pytest.approx(statistics.fmean(plain))
    assert plain == pytest.approx([record.value("forget_accuracy") for record in originals], abs=0.01)


def test_high_relevance_kills_the_class_and_low_relevance_hardly_matters(runs: Path) -> None:
    means = {(r["order"], float(r["share"])): float(r["mean"]) for r in rows(runs, "figure1-relevance-digits-zeroed")}

    assert means["high", 0.1] < 0.3
    assert means["low", 0.1] > 0.9
    assert all(means["high", share] < min(means["random", share], means["low", share]) for share in SHARES[1:6])


def test_figure_3_has_a_panel_for_each_augmentation_and_one_control(runs: Path) -> None:
    shown = rows(runs, "figure3-augmentations-digits-zeroed")

    assert list(dict.fromkeys(row["augmentation"] for row in shown)) == AUGMENTATIONS
    curves = {
        (augmentation, order): [
            row["mean"] for row in shown if (row["augmentation"], row["order"]) == (augmentation, order)
        ]
        for augmentation in AUGMENTATIONS
        for order in ("high", "low", "random")
    }
    assert {len(curve) for curve in curves.values()} == {len(SHARES)}
    assert len({tuple(curves[augmentation, "random"]) for augmentation in AUGMENTATIONS}) == 1
    assert len({tuple(curves[augmentation, "high"]) for augmentation in AUGMENTATIONS}) == 4
    # Grayscale leaves digits as they are, and figure 1 shows it too.
    first = rows(runs, "figure1-relevance-digits-zeroed", order="high")
    assert curves["grayscale", "high"] == [row["mean"] for row in first]


def metric(share: float, order: str, augmentation: str, found: float, **options: str) -> MetricRecord:
    named = {"layers": "weights", "sorted_in": "layer", "images": "test", **options}
    return MetricRecord(
        name="zeroed_accuracy",
        status="done",
        value=found,
        reason=None,
        options={"share": share, "order": order, "augmentation": augmentation, **named},
        distribution="unlearnbench",
        version=1,
        distribution_version="1",
        digest="1",
        details={"by_class": {"9": found}},
    )


def test_protocols_are_drawn_apart(runs: Path) -> None:
    record = records_of(runs, TWINS[0], "original")[0]
    metrics = [
        metric(0.1, "high", "rotation", 0.3),
        metric(0.1, "high", "rotation", 0.2, sorted_in="model"),
        metric(0.1, "random", "none", 0.9),
    ]
    changed = record.model_copy(update={"metrics": {str(n): one for n, one in enumerate(metrics)}})
    found = _protocols(Row(record.problem, record.method, "original", (changed,)))

    shown = {
        protocol: {
            (a, order): {share: [m.value for m in ms] for share, ms in curve.items()}
            for a, by in curves.items()
            for order, curve in by.items()
        }
        for protocol, curves in found.items()
    }
    assert shown == {
        ("weights", "layer", "test"): {("rotation", "high"): {0.1: [0.3]}, ("rotation", "random"): {0.1: [0.9]}},
        ("weights", "model", "test"): {("rotation", "high"): {0.1: [0.2]}},
    }


@pytest.mark.parametrize("explained", ["label", "predicted"])
@pytest.mark.parametrize("images", ["forget", "retain"])
@pytest.mark.parametrize("name", ["attention_entropy", "attention_shift"])
def test_the_bars_of_figure_4_are_the_records_metrics(runs: Path, name: str, images: str, explained: str) -> None:
    for row in rows(runs, "figure4-cam-digits-attention", metric=name, images=images, explained=explained):
        label = {"Original": "original", "FDR": "fdr"}.get(row["method"], row["method"])
        records = records_of(runs, TWINS[2], label)
        assert len(records) == 2
        found = [value(record, name, images=images, explained=explained) for record in records]
        there = [one for one in found if one is not None]
        assert int(row["seeds"]) == len(there)
        if there:
            assert float(row["mean"]) == pytest.approx(statistics.fmean(there))
        else:
            assert row["mean"] == ""
            assert row["reason"]


def test_where_there_is_no_bar_the_csv_says_why(runs: Path) -> None:
    reasons = {
        row["method"]: row["reason"]
        for row in rows(runs, "figure4-cam-digits-attention", explained="label", images="forget")
        if row["metric"] == "attention_entropy"
    }
    assert reasons["wd"] == "the model has no output for the classes [8, 9]"
    # FDR never saw the digits 8 and 9, so that nothing in an image speaks for them.
    assert reasons["FDR"] == "all 88 maps are empty: nothing in them speaks for the class"
    assert reasons["Original"] == ""


def test_weight_deletion_moves_no_attention_on_retain_images(runs: Path) -> None:
    (row,) = rows(
        runs, "figure4-cam-digits-attention", method="wd", metric="attention_shift", images="retain", explained="label"
    )
    assert float(row["mean"]) == 0.0


def test_the_grid_shows_what_the_stored_models_look_at(runs: Path) -> None:
    shown = rows(runs, "figure4-cam-digits-attention-maps")
    test = open_dataset("digits").test()
    place = {int(identity): position for position, identity in enumerate(test.ids)}
    records = {label: records_of(runs, TWINS[2], label)[0] for label in ("original", "fdr", "wd", "erwp")}
    assert {record.seed for record in records.values()} == {0}
    info = open_dataset("digits").info

    def own_map(label: str, position: int) -> torch.Tensor:
        network = Network("digits_net", {}, 10, (1, 8, 8))
        model = load_network(network.unfilled(), runs / records[label].files["model"].path).eval()
        pixels = torch.from_numpy(test.images.read(np.array([position]))).float() / 255
        image = (pixels - info.mean[0]) / info.std[0]
        return class_activation_maps(model, image, torch.tensor([int(test.labels[position])]))

    assert [row["class"] for row in shown[::4]] == ["8", "9", "0", "4", "7"]
    for row in shown:
        label = {"Original": "original", "FDR": "fdr"}.get(row["method"], row["method"])
        position = place[int(row["image"])]
        assert info.class_names[test.labels[position]] == row["class"]
        if label == "wd" and row["images"] == "forget":
            assert (row["map"], row["entropy"], row["shift"]) == ("no output", "", "")
            continue
        before, after = own_map("original", position), own_map(label, position)
        assert row["map"] == ("drawn" if after.any() else "empty")
        assert row["entropy"] == "" or float(row["entropy"]) == pytest.approx(entropy(after).item(), abs=1e-5)
        assert float(row["shift"]) == pytest.approx(shift(before, after).item(), abs=1e-5)


def test_the_same_records_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    report(runs, tmp_path)
    for name in NEW_FIGURES:
        for suffix in ("png", "svg", "csv"):
            first = (runs / "report" / "figures" / f"{name}.{suffix}").read_bytes()
            assert first == (tmp_path / "figures" / f"{name}.{suffix}").read_bytes()


def test_without_the_store_the_numbers_are_drawn_and_the_pictures_are_named(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "records", tmp_path / "records")

    (missing,) = report(tmp_path, tmp_path / "report")

    stems = {path.stem for path in (tmp_path / "report" / "figures").glob("*.png")}
    assert NEW_FIGURES - stems == {"figure4-cam-digits-attention-maps"}
    assert re.fullmatch(
        r"attention maps: not drawn: .*features\.h5: the features of original, seed 0, are not in the store", missing
    )


def test_images_of_another_revision_are_not_taken_for_the_runs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open_dataset("digits")

    def changed(name: str, options: dict[str, Any]) -> Dataset:
        info = type(real.info)(**{**vars(real.info), "revision": "another"})
        return Dataset(info, real.train, real.test)

    monkeypatch.setattr(attention_maps, "open_dataset", changed)

    (missing,) = report(runs, tmp_path)

    assert missing == f"attention maps: not drawn: digits has revision another here, the run's was {real.info.revision}"
    assert not (tmp_path / "figures" / "figure4-cam-digits-attention-maps.png").exists()


def test_a_manifest_without_models_does_not_cost_the_pictures_of_the_next(runs: Path, tmp_path: Path) -> None:
    records = [record for record in load_records(runs) if record.manifest_name == "figure4-cam-digits"]
    lost = [
        with_changes(
            record,
            manifest_name="a-manifest",
            files={**record.files, "model": record.files["model"].model_copy(update={"path": "store/gone"})},
        )
        for record in records
    ]
    folder = write_records(tmp_path, [*lost, *records])
    (folder / "store").symlink_to(runs / "store")
    (missing,) = report(folder, tmp_path / "report")
    assert missing.startswith(f"attention maps: not drawn: {folder}/store/gone: ")
    drawn = {path.stem for path in (tmp_path / "report" / "figures").glob("*attention*.png")}
    assert drawn == {"a-manifest-attention", "figure4-cam-digits-attention", "figure4-cam-digits-attention-maps"}


def test_pictures_are_the_first_recognised_images_of_evenly_spaced_classes() -> None:
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7] * 2)
    predicted = labels.copy()
    predicted[[0, 7, 5, 13]] = 3  # the first images of 0 and 7, and both of 5
    file = feature_file(np.zeros((16, 1)), labels, forget=[5, 6, 7], num_classes=8, logits=one_hot(predicted, 8))

    found = chosen_pictures(file, [f"class {label}" for label in range(8)])

    assert [(picture.kind, picture.label, picture.position) for picture in found] == [
        ("forget", 5, 5),
        ("forget", 6, 6),
        ("forget", 7, 15),
        ("retain", 0, 8),
        ("retain", 2, 2),
        ("retain", 4, 4),
    ]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("figure1-relevance", "cifar100-resnet20-fast"),
        ("figure1-relevance-resnet56", "cifar100-resnet56"),
        ("figure1-relevance-digits", "digits"),
        ("figure3-augmentations", "cifar100-resnet20-fast"),
        ("figure3-augmentations-resnet56", "cifar100-resnet56"),
        ("figure3-augmentations-digits", "digits"),
        ("figure4-cam", "cifar100-resnet20-fast"),
        ("figure4-cam-resnet56", "cifar100-resnet56"),
        ("figure4-cam-imagenet", "imagenet1k-resnet50"),
        ("figure4-cam-digits", "digits"),
    ],
)
def test_manifests_share_references_and_options_with_the_main_ones(name: str, base: str) -> None:
    main = tomllib.loads((PAPER.parent / f"{base}.toml").read_text())
    raw = tomllib.loads((PAPER / f"{name}.toml").read_text())

    assert {key: raw[key] for key in ("dataset", "architecture", "problem", "training")} == {
        key: main[key] for key in ("dataset", "architecture", "problem", "training")
    }
    assert set(raw["seeds"]) <= set(main["seeds"])
    assert cli("validate", PAPER / f"{name}.toml").code == 0
    if "figure4" in name:
        assert raw["unlearners"] == [
            entry for entry in main["unlearners"] if entry.get("label", entry["name"]) in ("wd", "erwp")
        ]
    else:
        assert "unlearners" not in raw
        assert {share for entry in raw["metrics"] for share in entry.get("matrix", {}).get("share", [0.0])} == set(
            SHARES
        )
