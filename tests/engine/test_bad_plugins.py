"""Bad plugins end in a clear message or a failed cell, and other plugins are not affected."""

from pathlib import Path

import pytest
from support.commands import cli
from support.manifests import FOLNRC, SEEDS, WD, manifest_text, write_manifest
from support.plugins import fake_distribution
from support.records import record_files

from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.record import Record

METHODS = """
import random
import numpy
import torch
def returns_none(model, task):
    pass
def returns_a_narrow_model(model, task):
    model[-1] = torch.nn.Linear(8, 3)
    return model
def raises_midway(model, task):
    for images, labels in task.batches(1, "retain", batch_size=8):
        model(images).sum().backward()
        raise RuntimeError("step 1 of 14")
def raises_in_its_second_epoch(model, task):
    for images, labels in task.batches(1, "retain", batch_size=8):
        pass
    task.end_epoch(model)
    raise RuntimeError("epoch 2 of 2")
def reports_a_tensor(model, task):
    task.report("loss", torch.zeros(1))
    return model
def reports_a_huge_number(model, task):
    task.report("number", 2**70)
    return model
def has_much_to_say(model, task):
    raise RuntimeError("x" * 100_000)
def fills_memory(model, task):
    raise MemoryError
def fills_the_device(model, task):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.\\nGPU 0 has ...")
def allocates_too_much(model, task):
    torch.empty(2**58)
def seeds_everything(model, task):
    torch.manual_seed(0)
    numpy.random.seed(0)
    random.seed(0)
    torch.rand(7)
    return model
def breaks_the_model(model, task):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    task.fresh_model()[0].weight.data.fill_(5.0)
    for images, labels in task.plain():
        images.zero_()
        labels.zero_()
    return model
def not_reached(model):
    return model
def not_typed(model, task, *, epochs=3):
    return model
"""
FAILING = {
    "returns_none": "returns_none returned NoneType, not the unlearned torch.nn.Module",
    "returns_a_narrow_model": "returns_a_narrow_model returned a model with 3 outputs for 10 classes; keep_outputs and "
    "add_output of unlearnbench.models.classifier change them",
    "raises_midway": "RuntimeError: step 1 of 14",
    "reports_a_tensor": "what it gave to task.report cannot be kept: Object of type Tensor is not JSON serializable",
    "reports_a_huge_number": "what it gave to task.report cannot be kept: it holds a number of 22 digits",
    "has_much_to_say": f"RuntimeError: {'x' * 1000} ...",
    "fills_memory": "out of memory: MemoryError",
    "fills_the_device": "out of memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB.",
}
MEDDLING = ("seeds_everything", "breaks_the_model")


def entry(name: str) -> str:
    return f'[[unlearners]]\nname = "{name}"'


def install(search_path: Path, *names: str) -> None:
    fake_distribution(
        search_path, "bad", {"unlearners": {name: f"bad_plugins:{name}" for name in names}}, {"bad_plugins": METHODS}
    )


def records(output: Path) -> dict[str, Record]:
    return {name.partition("/")[0]: read_record(path) for name, path in record_files(output).items()}


@pytest.mark.slow
def test_what_bad_methods_do_is_recorded_and_changes_no_other_result(search_path: Path, tmp_path: Path) -> None:
    install(search_path, *FAILING, *MEDDLING)
    good = write_manifest(tmp_path, manifest_text(WD, FOLNRC), "good.toml")
    # The good ones come last, so that whatever the bad ones leave behind would affect them.
    bad = write_manifest(tmp_path, manifest_text(*map(entry, (*FAILING, *MEDDLING)), WD, FOLNRC), "bad.toml")
    assert cli("run", good, "-o", tmp_path / "good", "--device", "cpu").code == 0
    done = cli("run", bad, "-o", tmp_path / "bad", "--device", "cpu")
    assert done.code == 1
    assert "Traceback" not in done.err
    found, alone = records(tmp_path / "bad"), records(tmp_path / "good")
    assert {name: found[name].reason for name in FAILING} == FAILING
    assert {found[name].status for name in FAILING} == {"failed"}
    assert {found[name].status for name in MEDDLING} == {"done"}
    assert {"original", "fdr", "wd", "folnrc"} == set(alone)
    for name, record in alone.items():
        assert found[name].metrics == record.metrics
        assert found[name].files == record.files
        assert found[name].image_passes == record.image_passes


@pytest.mark.slow
def test_a_cell_that_fails_after_an_epoch_keeps_its_curve_and_has_no_fault(search_path: Path, tmp_path: Path) -> None:
    install(search_path, "raises_in_its_second_epoch")
    text = manifest_text(entry("raises_in_its_second_epoch"), WD, head=f"{SEEDS}\nevaluate_every = 1")
    path = write_manifest(tmp_path, text)
    assert cli("run", path, "-o", tmp_path / "runs", "--device", "cpu").code == 1
    found = records(tmp_path / "runs")["raises_in_its_second_epoch"]
    assert (found.status, found.reason) == ("failed", "RuntimeError: epoch 2 of 2")
    assert [epoch.epoch for epoch in found.epochs] == [1]
    checked = cli("leaderboard", "check", tmp_path / "runs")
    assert checked.code == 0, checked.out + checked.err


@pytest.mark.slow
def test_an_allocation_that_torch_refuses_is_a_failed_cell(search_path: Path, tmp_path: Path) -> None:
    install(search_path, "allocates_too_much")
    path = write_manifest(tmp_path, manifest_text(entry("allocates_too_much"), WD))
    assert cli("run", path, "-o", tmp_path / "runs", "--device", "cpu").code == 1
    found = records(tmp_path / "runs")
    assert found["allocates_too_much"].status == "failed"
    assert "alloc" in (found["allocates_too_much"].reason or "").lower()
    assert found["wd"].status == "done"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "not_reached",
            "unlearner 'not_reached' of bad has no readable signature: takes 1 positional arguments, not 2 "
            "(model, task)",
        ),
        ("not_typed", "option 'epochs' of bad_plugins:not_typed needs a type and a default"),
        (
            "not_there",
            "unlearner 'not_there' of bad 1.0 cannot be loaded from bad_plugins:not_there: AttributeError: module "
            "'bad_plugins' has no attribute 'not_there'",
        ),
    ],
)
def test_a_method_that_cannot_be_called_is_a_fault_before_anything_is_trained(
    search_path: Path, tmp_path: Path, name: str, message: str
) -> None:
    install(search_path, name)
    path = write_manifest(tmp_path, manifest_text(entry(name), WD))
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"{path}:17: unlearners.0.name: {message}\n"
    assert not (tmp_path / "runs").exists()


def test_a_method_that_cannot_be_imported_stops_neither_list_nor_a_manifest_without_it(
    search_path: Path, tmp_path: Path
) -> None:
    fake_distribution(search_path, "sick", {"unlearners": {"sick": "sick_unlearner:f"}}, {"sick_unlearner": "1 / 0"})
    assert ["sick", "sick", "1.0"] in [line.split() for line in cli("list", "unlearners").out.splitlines()]
    shown = cli("show", "sick")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        "unlearner 'sick' of sick 1.0 cannot be loaded from sick_unlearner:f: ZeroDivisionError: division by zero\n"
    )
    assert cli("validate", write_manifest(tmp_path, manifest_text(WD))).code == 0


def test_a_name_taken_twice_is_a_fault_that_names_both(search_path: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        fake_distribution(search_path, name, {"unlearners": {"twin": f"{name}_module:f"}})
    path = write_manifest(tmp_path, manifest_text(entry("twin"), WD))
    done = cli("run", path, "-o", tmp_path / "runs")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"{path}:17: unlearners.0.name: unlearner 'twin' is claimed by first 1.0 and second 1.0\n"
        "  Uninstall one of them, or rename its entry point\n"
    )
