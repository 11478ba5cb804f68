"""The package's interface for notebooks."""

from __future__ import annotations

import io
import typing
from pathlib import Path

import pytest
from conftest import FinishedRun
from rich.console import Console
from support.commands import python
from support.records import make_record, write_records

import unlearnbench as ub
from unlearnbench.errors import ManifestError


def test_the_import_is_lazy() -> None:
    # What it takes is a matter of what it imports, and seconds would be one of what else the machine does.
    code = (
        "import sys; before = set(sys.modules); import unlearnbench; "
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(roots - set(sys.stdlib_module_names)), 'unlearnbench.errors' in sys.modules)"
    )
    assert python("-c", code).out == "['unlearnbench'] False\n"


def test_every_name_of_the_interface_is_there_and_documented() -> None:
    assert set(ub.__all__) <= set(dir(ub))
    for name in ub.__all__:
        assert getattr(ub, name).__doc__, name
    with pytest.raises(AttributeError, match=r"^module 'unlearnbench' has no attribute 'no_such_name'$"):
        ub.no_such_name  # noqa: B018


def test_the_interface_names_for_type_checkers_what_it_imports() -> None:
    assert sorted(ub._HOMES) == ub.__all__
    for name, home in ub._HOMES.items():
        assert getattr(ub, name).__module__ == f"unlearnbench.{home}"
        if name != "NotApplicable":
            assert typing.get_type_hints(getattr(ub, name))


def test_a_finished_run_is_read_and_run_again_at_once(finished: FinishedRun) -> None:
    records = ub.run(ub.load_manifest(finished.manifest), finished.output, device="cpu")
    frame = ub.read_records(finished.output)
    assert {(record.method.label, record.seed) for record in records} == set(
        zip(frame.unlearner, frame.seed, strict=True)
    )
    for record in records:
        mine = frame[(frame.unlearner == record.method.label) & (frame.seed == record.seed)]
        values = {label: metric.value for label, metric in record.metrics.items()}
        assert dict(zip(mine.metric, mine.value.astype(object).where(mine.value.notna(), None), strict=True)) == values
        assert mine.status.tolist() == [metric.status for metric in record.metrics.values()]
        assert mine.options.iloc[0] == record.method.options


@pytest.mark.slow
def test_a_run_goes_on_from_a_path_and_shows_what_it_does(finished: FinishedRun, tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=100)
    records = ub.run(str(finished.manifest), str(tmp_path / "runs"), device="cpu", only=["wd"], console=console)
    assert [record.method.label for record in records] == ["original", "fdr", "wd"] * 2
    assert "short: 6 cells, 0 done before, on cpu" in shown.getvalue()


def test_faults_of_a_manifest_are_raised(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("seeds = []")
    with pytest.raises(ManifestError):
        ub.load_manifest(tmp_path / "x.toml")


def test_cells_without_a_result_have_a_row(tmp_path: Path) -> None:
    records = [
        make_record("original", 0),
        make_record("fdr", 0),
        make_record("broken", 0, metrics=None, status="failed", reason="ValueError: no"),
    ]
    frame = ub.read_records(write_records(tmp_path, records))
    broken = frame[frame.unlearner == "broken"]
    assert broken.to_dict("records")[0]["reason"] == "ValueError: no"
    assert broken.status.tolist() == ["failed"]
    assert broken.metric.isna().all()
    assert broken.value.isna().all()
