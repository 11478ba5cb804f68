"""Reports of real runs, from a manifest to tables and pictures."""

from __future__ import annotations

import csv
import re
import shutil
import statistics
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.commands import cli, python
from support.paths import REPOSITORY
from support.records import make_record, small_board, with_changes, write_records

from unlearnbench.metrics.features import open_features
from unlearnbench.results.experiments import experiments
from unlearnbench.results.figures.feature_map import fitted, turned
from unlearnbench.results.figures.style import COLUMN, DOTS_PER_INCH, PAGE, legend_below, looks, new_figure, styled
from unlearnbench.results.leaderboard.build import build_leaderboard
from unlearnbench.results.records.load import load_records
from unlearnbench.results.records.record import Record
from unlearnbench.results.report.report import write_report

pytestmark = pytest.mark.slow

PAPER = REPOSITORY / "manifests" / "paper"
COMMITTED = REPOSITORY / "leaderboard" / "reproduction"
TWINS = (
    "table1-digits",
    "table2-losses-digits",
    "table3-forget-classes-digits",
    "table4-beta-digits",
    "figure2-epochs-digits",
    "section58-full-data-digits",
)
OVER_SEEDS = ("table1-digits", "table4-beta-digits", "figure2-epochs-digits")
FAE, FPAE, CANE = "forget_accuracy", "forget_prototype_accuracy", "retain_accuracy"


def shortened(name: str, folder: Path) -> Path:
    """Return a twin with a narrow network, two epochs of everything and, but where seeds are looked at, one of them."""
    text = (PAPER / f"{name}.toml").read_text()
    if name not in OVER_SEEDS:
        text = text.replace("seeds = [0, 1]", "seeds = [0]")
    for old, new in (
        ('name = "digits_net"', 'name = "digits_net"\noptions = { width = 4 }'),
        ("\nepochs = 20\n", "\nepochs = 2\n"),
        ("batch_size = 64\n", "batch_size = 128\n"),
        ("epochs = 20", "epochs = 2"),
        ("epochs = 60", "epochs = 2"),
    ):
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all shortened twins into one output folder."""
    folder = tmp_path_factory.mktemp("twins")
    manifests = [shortened(name, folder) for name in TWINS]
    only = [word for method in ("erwp", "wd", "tslnrc") for word in ("--only", method)]
    assert cli("run", manifests[0], "-o", folder / "runs", "--device", "cpu", *only).code == 0
    done = cli("run", *manifests[1:], "-o", folder / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    return folder / "runs"


@pytest.fixture(scope="module")
def report(runs: Path) -> Path:
    """Write the report of the twins, with the paper beside it."""
    done = cli("report", runs, "--paper")
    assert (done.code, done.err) == (0, "")
    assert [Path(line) for line in done.out.splitlines()][:2] == [runs / "report/README.md", runs / "report/paper.md"]
    assert all(Path(line).is_file() for line in done.out.splitlines())
    return runs / "report"


def rows(report: Path, name: str) -> list[dict[str, str]]:
    with (report / "figures" / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def of(runs: Path, manifest: str, **wanted: Any) -> list[Record]:
    """Return a manifest's records of an unlearner, by label or by name."""
    return [
        record
        for record in load_records(runs)
        if record.manifest_name == manifest
        and all(getattr(record.method, key) == value for key, value in wanted.items())
    ]


def test_every_kind_of_figure_is_drawn_for_every_experiment_that_has_it(report: Path) -> None:
    stems = {path.stem for path in (report / "figures").glob("*.png")}
    problems = [name for name in TWINS if "table3" not in name]
    problems += [f"table3-forget-classes-digits-forget{number}" for number in (1, 2, 4)]
    of_each = {f"{name}-{kind}" for name in problems for kind in ("trade-off", "fpae", "stages", "features")}
    assert of_each <= stems
    matrices = {f"{name}-erwp-matrix" for name in TWINS if name.split("-")[0] in {"table2", "table3", "table4"}}
    epochs = {"figure2-epochs-digits-erwp-epochs", "section58-full-data-digits-erwp-epochs"}
    shares = {stem for stem in stems if stem.startswith("relevant-share-")}
    # ERwP ran on five problems, which is what a profile takes.
    assert stems == of_each | matrices | epochs | shares | {"performance-profile"}
    # The shares are of 1, 2 and 4 classes, of all training images, and of 3 images of each class.
    assert len(shares) == 5


def test_every_picture_has_its_vector_form_and_its_numbers(report: Path) -> None:
    pictures = sorted((report / "figures").glob("*.png"))
    for path in pictures:
        assert rows(report, path.stem), path
        assert path.with_suffix(".svg").read_text().startswith("<?xml")
        assert f"![{path.stem}](figures/{path.name})" in (report / "README.md").read_text()


def test_a_picture_is_as_wide_as_a_column_and_a_map_of_the_stages_as_a_page(report: Path) -> None:
    for path in (report / "figures").glob("*.png"):
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width == round((PAGE if path.stem.endswith("-stages") else COLUMN) * DOTS_PER_INCH)
        assert 200 < height < 1400


def test_the_trade_off_shows_the_records_numbers(runs: Path, report: Path) -> None:
    shown = {(row["method"], int(row["seed"])): row for row in rows(report, "table1-digits-trade-off")}
    records = of(runs, "table1-digits")
    assert len(shown) == len(records) == 10
    for record in records:
        name = {"original": "Original", "fdr": "FDR"}.get(record.method.name, record.method.label)
        for metric in (FAE, FPAE, CANE):
            assert float(shown[name, record.seed][metric]) == record.value(metric)


def test_the_bars_show_means_and_intervals(runs: Path, report: Path) -> None:
    shown = {row["method"]: row for row in rows(report, "table4-beta-digits-fpae")}
    values = [record.value(FPAE) or 0.0 for record in of(runs, "table4-beta-digits", label="erwp beta=8.0")]
    row = shown["erwp beta=8.0"]
    assert float(row["mean"]) == pytest.approx(statistics.fmean(values))
    half = 12.706 * statistics.stdev(values) / 2**0.5
    assert float(row["high"]) - float(row["mean"]) == pytest.approx(half, rel=1e-3)


def test_the_epochs_are_those_of_the_records_and_start_with_original(runs: Path, report: Path) -> None:
    shown = {
        (row["metric"], int(row["epoch"]), int(row["seed"])): row
        for row in rows(report, "figure2-epochs-digits-erwp-epochs")
    }
    originals = {record.seed: record for record in of(runs, "figure2-epochs-digits", label="original")}
    for record in of(runs, "figure2-epochs-digits", label="erwp"):
        assert [epoch.epoch for epoch in record.epochs] == [1, 2]
        for metric in (FAE, FPAE, CANE):
            assert float(shown[metric, 0, record.seed]["value"]) == originals[record.seed].value(metric)
            for epoch in record.epochs:
                assert float(shown[metric, epoch.epoch, record.seed]["value"]) == epoch.metrics[metric]


def test_the_matrix_has_a_row_for_each_value_in_order(runs: Path, report: Path) -> None:
    shown = [row for row in rows(report, "table4-beta-digits-erwp-matrix") if row["metric"] == CANE]
    assert [float(row["value"]) for row in shown] == [8, 9, 10, 11, 12]
    for row in shown:
        records = of(runs, "table4-beta-digits", label=f"erwp beta={row['value']}")
        assert float(row["mean"]) == pytest.approx(statistics.fmean(record.value(CANE) or 0.0 for record in records))
    classes = [row for row in rows(report, "table3-forget-classes-digits-erwp-matrix") if row["metric"] == FAE]
    assert [row["value"] for row in classes] == ["1", "2", "4"]


def test_losses_stand_in_the_manifests_order(report: Path) -> None:
    shown = [row["value"] for row in rows(report, "table2-losses-digits-erwp-matrix") if row["metric"] == FAE]
    assert shown == ["erwp l_ne", "erwp l_ne+l_e", "erwp"]


def test_the_relevant_shares_are_those_of_the_search(runs: Path, report: Path) -> None:
    findings = [
        finding
        for search in cli("relevance", runs, "--json").json
        if "forget2-10pct" in search["problem"]
        for finding in search["findings"]
    ]
    (path,) = (report / "figures").glob("relevant-share-*forget2-10pct*.csv")
    for row in rows(report, path.stem):
        shares = [finding["share"] for finding in findings if finding["layer"] == row["layer"]]
        assert float(row["mean"]) == pytest.approx(statistics.fmean(shares))
        assert float(row["highest"]) == max(shares)
        # Rounded up to whole parameters, a layer's union is on average at least the largest share of a class.
        assert float(row["union"]) >= float(row["mean"])


def test_the_feature_map_has_every_forget_image_once(runs: Path, report: Path) -> None:
    shown = rows(report, "table1-digits-features")
    assert {row["method"] for row in shown} == {"Original", "FDR", "erwp"}
    (record,) = [record for record in of(runs, "table1-digits", label="erwp") if record.seed == 0]
    with open_features(runs / record.files["features"].path) as features:
        labels = features.labels("test", features.forget_classes)
    for method in ("Original", "FDR", "erwp"):
        classes = [row["class"] for row in shown if row["method"] == method and row["class"] != "retain"]
        assert sorted(classes) == sorted(str(label) for label in labels.tolist())


def test_tables_of_matrices_have_what_is_varied_as_columns(report: Path) -> None:
    page = (report / "README.md").read_text()
    assert "| method | beta | FAe | FPAe | CAne | gap to FDR | seeds |" in page
    assert "| method | forget classes | FAe | FPAe | CAne | gap to FDR | seeds |" in page
    assert "| method | l_e | l_kd | FAe | FPAe | CAne | gap to FDR | seeds |" in page
    assert page.count("| rank | method | kept |") == 3


def test_each_table_says_where_it_was_computed(runs: Path, report: Path) -> None:
    (record, *_) = of(runs, TWINS[0])
    place = f"Computed on {record.environment['device']}, {record.environment['precision']}.\n"
    assert (report / "README.md").read_text().count(place) >= len(TWINS)


def test_where_rows_were_computed_in_several_places_each_is_named(tmp_path: Path) -> None:
    records = [make_record(method, seed) for method in ("original", "fdr", "erwp") for seed in (0, 1)]
    for index in (4, 5):
        moved = {**records[index].environment, "device": "GPU", "precision": "bfloat16"}
        records[index] = with_changes(records[index], environment=moved)
    assert cli("report", write_records(tmp_path, records)).code == 0
    page = (tmp_path / "report" / "README.md").read_text()
    assert re.search(r"Computed on\n\n- .*: Original; FDR\n- GPU, bfloat16: erwp\n", page)


def test_files_of_another_machine_are_not_drawn_as_the_record_s(runs: Path, tmp_path: Path) -> None:
    folder = part(runs, tmp_path, "figure2-epochs-digits", store=False)
    shutil.copytree(runs / "store", folder / "store")
    first, *_ = (record for record in load_records(folder) if record.seed == 0 and record.method.name == "erwp")
    other, *_ = (record for record in load_records(folder) if record.seed == 1 and record.method.name == "erwp")
    shutil.copy(folder / other.files["features"].path, folder / first.files["features"].path)
    assert cli("report", folder).code == 0
    page = (folder / "report" / "README.md").read_text()
    assert re.search(r"Test features of forget classes \(.*, seed 1\)", page)


def test_a_problem_whose_searches_are_not_in_the_store_is_named(runs: Path, tmp_path: Path) -> None:
    folder = part(runs, tmp_path, "table3-forget-classes-digits", store=False)
    shutil.copytree(runs / "store", folder / "store")
    searched = [record for record in load_records(folder) if "relevance" in record.details.get("kept", {})]
    gone = searched[0].problem
    for record in searched:
        if record.problem.id == gone.id:
            shutil.rmtree(folder / "store/relevance" / record.details["kept"]["relevance"])
    done = cli("report", folder)
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("relevant share: not drawn: ")
    assert line.endswith(f": the search of erwp, {gone.slug} is not in the store")


def test_tables_have_their_numbers_as_csv(runs: Path, report: Path) -> None:
    for name in TWINS:
        with (report / "tables" / f"{name}.csv").open() as stream:
            lines = list(csv.DictReader(stream))
        assert len(lines) == len({(record.method.label, record.problem.id) for record in of(runs, name)})
        assert all(0 <= float(line[f"{CANE} mean"]) <= 1 for line in lines)


def part(runs: Path, folder: Path, manifest: str, *, store: bool) -> Path:
    """Return an output folder with the records of one manifest, and with the store if wanted."""
    shutil.copytree(runs / "records" / manifest, folder / "records" / manifest)
    if store:
        (folder / "store").symlink_to(runs / "store")
    return folder


def test_the_same_records_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    folder = part(runs, tmp_path, "figure2-epochs-digits", store=True)
    files = []
    for name in ("first", "second"):
        assert cli("report", folder, "--paper", "-o", tmp_path / name).code == 0
        files.append({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")})
    assert len(files[0]) == 2 + 1 + 3 * 6
    assert files[0] == files[1]


def test_claims_of_the_twins_are_judged_and_others_not_run(report: Path) -> None:
    page = (report / "paper.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    verdicts = {line.partition("`")[2].partition("`")[0]: line for line in lines if "`)" in line}
    assert "not run | missing: no record of figure4" in verdicts["figure4-scatters"]
    for name in ("table2-whole-keeps", "table3-keeps", "table4-beta-best", "figure2-keeps", "section58-gap-shrinks"):
        assert re.search(r"\*\*(holds|does not hold|undecided)\*\*", verdicts[name])
        assert verdicts[name].endswith("| other data |")
    assert sum("`table3-forgets`" in line for line in lines) == 3


def test_records_alone_give_all_but_what_needs_the_store(runs: Path, tmp_path: Path) -> None:
    folder = part(runs, tmp_path, "figure2-epochs-digits", store=False)
    done = cli("report", folder)
    assert done.code == 0
    told = done.err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["relevant share", "feature map"]
    assert all(": not drawn: " in line and " in the store" in line for line in told)
    stems = {path.stem.rpartition("-")[2] for path in (folder / "report" / "figures").glob("*.png")}
    assert stems == {"off", "fpae", "stages", "epochs"}
    assert told[0] in (folder / "report" / "README.md").read_text()


def test_what_the_store_holds_of_another_seed_is_drawn(runs: Path, tmp_path: Path) -> None:
    folder = part(runs, tmp_path, "figure2-epochs-digits", store=False)
    shutil.copytree(runs / "store", folder / "store")
    for record in load_records(folder):
        if record.seed == 0:
            (folder / record.files["features"].path).unlink()
            shutil.rmtree(folder / "store/relevance" / record.details.get("kept", {}).get("relevance", "none"), True)
    done = cli("report", folder)
    assert (done.code, done.err) == (0, "")
    page = (folder / "report" / "README.md").read_text()
    assert re.search(r"Test features of forget classes \(.*, seed 1\)", page)
    assert "; seeds: 1): of each class by itself" in page


def test_without_matplotlib_the_message_says_what_to_install(runs: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['matplotlib'] = None; sys.argv = ['unlearnbench', 'report', sys.argv[1]]\n"
    done = python("-c", f"{blocked}from unlearnbench.frontends.cli import main; main()", runs)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("figures need matplotlib: ")
    assert done.err.endswith('\n  pip install "unlearnbench[report]"\n')


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    done = cli("report", tmp_path)
    assert (done.code, done.err) == (
        1,
        f"{tmp_path}: holds no run records\n  unlearnbench run MANIFEST -o {tmp_path}\n",
    )


def test_the_papers_numbers_stand_beside_ours_with_the_difference(tmp_path: Path) -> None:
    problem = {"dataset": "cub200", "architecture": "resnet50", "num_classes": 200, "limited": "3 images"}
    changes = {**problem, "forget_classes": tuple(range(180, 200)), "training": {"epochs": 50}}
    records = [
        with_changes(record, problem=record.problem.model_copy(update=changes), manifest_name="table1-cub200")
        for seed in (0, 1)
        for record in (
            make_record("original", seed, metrics=(0.85, 0.84, 0.77)),
            make_record("fdr", seed, metrics=(0.0, 0.5, 0.78)),
            make_record("erwp", seed, metrics=(0.01 * seed, 0.5, 0.76), options={"beta": 10.0}),
        )
    ]
    done = cli("report", write_records(tmp_path, records), "--paper")
    assert done.code == 0, done.err
    page = (tmp_path / "report" / "paper.md").read_text()
    assert "| erwp | FAe | 0.77 | 0.50 ± 0.71 | -0.27 | 2 | 50 epochs |" in page
    assert "| erwp | CAne | 75.45 | 76.00 ± 0.00 | +0.55 | 2 | 50 epochs |" in page
    (line,) = [line for line in page.splitlines() if "`methods-erwp-keeps`" in line]
    assert "| **holds** | -1.00 ± 0.00 (2 seeds) |" in line
    assert line.endswith("| the paper's |")


def test_table1_is_the_manifest_of_cub200() -> None:
    first, second = (
        tomllib.loads(path.read_text()) for path in (PAPER / "table1-cub200.toml", PAPER.parent / "cub200.toml")
    )
    assert first == second


@pytest.mark.parametrize(
    ("suffix", "base"),
    [
        ("", "cifar100-resnet20-fast"),
        ("-resnet20", "cifar100-resnet20"),
        ("-resnet56", "cifar100-resnet56"),
        ("-digits", "digits"),
    ],
)
def test_manifests_of_the_supplement_share_their_references_with_the_main_ones(suffix: str, base: str) -> None:
    main = tomllib.loads((PAPER.parent / f"{base}.toml").read_text())
    names = {"table2-losses", "table3-forget-classes", "table4-beta", "table5-kappa"}
    names |= {"figure2-epochs", "section57-relevant-share", "section58-full-data"}
    found = [
        path
        for path in sorted(PAPER.glob("*.toml"))
        if path.stem.endswith(suffix or tuple(names)) and path.stem.removesuffix(suffix) in names
    ]
    assert len(found) >= 4
    for path in found:
        raw = tomllib.loads(path.read_text())
        assert {key: raw[key] for key in ("dataset", "architecture", "training")} == {
            key: main[key] for key in ("dataset", "architecture", "training")
        }, path
        assert set(raw["seeds"]) <= set(main["seeds"])


def test_the_projection_keeps_what_varies_most() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    points = generator.normal(size=(200, 5)) * [10, 0.1, 5, 0.1, 0.1]
    found = fitted(points)
    assert found.share > 0.99
    assert abs(found.directions[[0, 2], [0, 1]]).min() > 0.99
    assert np.cov(found.of(points).T)[0, 1] == pytest.approx(0, abs=1e-9)


def test_a_turned_network_lies_where_it_lay() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    target = generator.normal(size=(50, 4))
    rotation, _ = np.linalg.qr(generator.normal(size=(4, 4)))
    moved = target @ rotation + 3
    assert turned(moved, moved, target) == pytest.approx(target)
    assert np.linalg.norm(np.diff(turned(moved, moved[:20], target[:20]), axis=0)) == pytest.approx(
        np.linalg.norm(np.diff(moved, axis=0))
    )


def test_each_method_of_a_figure_looks_different() -> None:
    names = ["original", "fdr", "wd", "tslnrc", "tslnrc_kd", "tolnrc", "tolnrc_kd", "folmrcsc", "folmrcsc_kd", "folnrc"]
    names += ["folnrc_kd", "erwp", *(f"mine{number}" for number in range(8))]
    methods = [make_record(name, 0).method for name in names]
    methods += [make_record("erwp", 0).method.model_copy(update={"label": f"erwp beta={beta}"}) for beta in range(5)]
    found = looks(methods)
    assert len(found) == len(set(found.values())) == len(methods)
    assert looks(methods) == found


def test_the_style_ends_with_its_context() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with styled():
        figure, axes = new_figure(columns=2)
        assert isinstance(figure, Figure)
        assert len(axes) == 2
        assert axes[0].xaxis.label.get_fontsize() == 8
    assert dict(matplotlib.rcParams) == before


def test_an_experiment_knows_what_its_manifest_varies(runs: Path) -> None:
    found = {experiment.name: experiment for experiment in experiments(load_records(runs))}
    assert found["table4-beta-digits"].varied_options == ("beta",)
    assert found["table3-forget-classes-digits"].varied_problem == ("forget classes",)
    assert found["table2-losses-digits"].varied_options == ("l_e", "l_kd")
    assert not found["figure2-epochs-digits"].has_matrix


def test_the_committed_report_is_what_the_records_give(tmp_path: Path) -> None:
    write_report(COMMITTED.parent, tmp_path, paper=True, brief=True)
    for page in ("README.md", "paper.md"):
        assert (tmp_path / page).read_text() == (COMMITTED / page).read_text()
    pictures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert pictures == {path.name for path in (COMMITTED / "figures").iterdir()}
    assert {Path(name).suffix for name in pictures} == {".png"}


def test_every_link_of_the_committed_report_leads_to_a_file() -> None:
    for page in COMMITTED.glob("*.md"):
        targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
        assert targets or page.name == "paper.md"
        assert [target for target in targets if not (COMMITTED / target).is_file()] == []


LEGENDS = [("wd", 2), ("erwp-batch-norm-training", 2), ("a name that is too long " * 2, 4)]


@pytest.mark.parametrize(("label", "lines"), LEGENDS)
def test_a_legend_takes_fewer_columns_rather_than_leave_its_figure(label: str, lines: int) -> None:
    with styled():
        figure, (axes,) = new_figure()
        for number in range(4):
            axes.plot([0], [0], "o", label=f"{label}{number}")
        assert legend_below(figure, [axes], 3) == lines
        (legend,) = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width


def test_a_brief_report_of_a_leaderboard_has_a_picture_for_each_network_and_no_table_twice(tmp_path: Path) -> None:
    changes = {"architecture": "another"}
    other = [with_changes(one, problem=one.problem.model_copy(update=changes)) for one in small_board("b", 3)]
    build_leaderboard([write_records(tmp_path / "runs", [*small_board("a", 3), *other])], tmp_path / "board")
    extra = [with_changes(one, manifest_name="experiment") for one in small_board("c", 3)]
    beside = write_records(tmp_path / "beside", extra)
    build_leaderboard([tmp_path / "board"], tmp_path / "board", beside=[beside])
    write_report(tmp_path / "board", tmp_path / "brief", brief=True)
    text = (tmp_path / "brief" / "README.md").read_text()
    assert re.findall("^## (.*)$", text, re.M) == ["experiment", "What the columns say", "Figures"]
    assert "On the leaderboard's own pages, and not here: `small`.\n" in text
    names = sorted(path.name for path in (tmp_path / "brief" / "figures").iterdir())
    assert names == ["digits-another-trade-off.png", "digits-digits_net-trade-off.png"]
    for name in names:
        with Image.open(tmp_path / "brief" / "figures" / name) as picture:
            assert picture.mode == "P"
    # Two problems of one network stand in one picture, in the order of their manifests.
    assert "(1: c: forget 1 of 10 classes; 2: a: forget 1 of 10 classes)" in text
    # A run's own report has all tables, brief or not.
    write_report(tmp_path / "runs", tmp_path / "own", brief=True)
    assert "## small\n" in (tmp_path / "own" / "README.md").read_text()
