"""Exported weights: in the names of the user's own checkpoint, checked against the record, with a card."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FinishedRun
from safetensors import safe_open
from safetensors.torch import load_file
from support.commands import cli
from support.manifests import ERWP, WD, manifest_text, write_manifest
from support.records import record_files

from unlearnbench.files import file_hash
from unlearnbench.models.build import Network
from unlearnbench.models.checkpoints import naming, read_state
from unlearnbench.results.records.record import content_hash

pytestmark = pytest.mark.slow

NETWORK = Network("digits_net", {"width": 4}, 10, (1, 8, 8))


@pytest.fixture(scope="module")
def own_run(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two methods without FDR on a checkpoint as DataParallel names its tensors, without counts of batches."""
    folder = tmp_path_factory.mktemp("own")
    original = json.loads(record_files(finished.output)["original/seed-0.json"].read_text())
    state = load_file(finished.output / original["files"]["model"]["path"])
    torch.save(
        {f"module.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")},
        folder / "mine.pth",
    )
    head = 'seeds = [0]\nreferences = { original = "mine.pth", fdr = "none" }'
    done = cli("run", write_manifest(folder, manifest_text(WD, ERWP, head=head)), "-o", folder / "runs")
    assert done.code == 0, done.err
    return folder


def record(folder: Path, name: str) -> dict:
    return json.loads(record_files(folder / "runs")[name].read_text())


@pytest.mark.parametrize("name", ["new.safetensors", "new.pt"])
def test_the_file_has_the_names_of_the_users_own_checkpoint(own_run: Path, tmp_path: Path, name: str) -> None:
    done = cli("export-model", own_run / "runs", "--only", "erwp", "-o", tmp_path / name)
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / name}\n{tmp_path / 'new.md'}\n"
    # Whoever serves the model is seldom who has made it.
    assert (tmp_path / name).stat().st_mode == (tmp_path / "new.md").stat().st_mode
    assert read_state(tmp_path / name)[0].keys() == torch.load(own_run / "mine.pth").keys()
    stored = load_file(own_run / "runs" / record(own_run, "erwp/seed-0.json")["files"]["model"]["path"])
    for key, value in read_state(tmp_path / name)[0].items():
        assert torch.equal(value, stored[key.removeprefix("module.")])


def test_the_four_lines_of_the_card_load_the_file_into_the_users_own_class(own_run: Path, tmp_path: Path) -> None:
    assert cli("export-model", own_run / "runs", "--only", "erwp", "-o", tmp_path / "new.safetensors").code == 0
    card = (tmp_path / "new.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", card, re.M | re.S)[0]
    own = NETWORK.unfilled()
    code = code.replace("model = ...", "model = own").replace('"new.', f'"{tmp_path}/new.')
    exec(code, {"own": own})
    stored = load_file(own_run / "runs" / record(own_run, "erwp/seed-0.json")["files"]["model"]["path"])
    assert all(torch.equal(value, stored[key]) for key, value in own.state_dict().items() if "num_batches" not in key)


def test_the_card_says_from_what_the_weights_were_made(own_run: Path, tmp_path: Path) -> None:
    assert cli("export-model", own_run / "runs", "--only", "erwp", "-o", tmp_path / "new.safetensors").code == 0
    card, made = (tmp_path / "new.md").read_text(), record(own_run, "erwp/seed-0.json")
    for text in (
        "**8, 9**",
        file_hash(own_run / "mine.pth"),
        file_hash(tmp_path / "new.safetensors"),
        made["hash"],
        made["problem"]["dataset_revision"],
        '"augmentation": "rotation"',
        "There is no FDR",
        "no guarantee",
        "none of them is classified otherwise",
    ):
        assert text in card, text
    shares = [
        record(own_run, f"{name}/seed-0.json")["metrics"]["retain_accuracy"]["value"] for name in ("original", "erwp")
    ]
    before, after = (
        record(own_run, f"{name}/seed-0.json")["metrics"]["forget_accuracy"]["value"] for name in ("original", "erwp")
    )
    known = f"still recognised: {100 * after:.2f} % of their test images, {100 * before:.2f} % before"
    words = f"to be removed: **8, 9**. They are {known}." if after > max(0.05, 0.1 * before) else "removed: **8, 9**."
    assert f"from which these classes were {words}" in card
    line = next(line for line in card.splitlines() if line.startswith("| CAne"))
    assert line.split("|")[2:4] == [f" {100 * share:.2f} " for share in shares]


def test_a_model_with_fewer_outputs_says_which_are_left(own_run: Path, tmp_path: Path) -> None:
    done = cli("export-model", own_run / "runs", "--only", "wd", "-o", tmp_path / "wd.safetensors")
    assert done.code == 0, done.err
    with safe_open(tmp_path / "wd.safetensors", "pt") as file:
        assert file.metadata()["output_classes"] == "0 1 2 3 4 5 6 7"
        assert not any("output_classes" in key for key in file.keys())  # noqa: SIM118 - it is no mapping
    assert "8 outputs, where the original model has 10: build the network with 8." in (tmp_path / "wd.md").read_text()


def test_outputs_go_back_into_the_order_of_the_checkpoint(own_run: Path, tmp_path: Path) -> None:
    order = [3, 9, 1, 2, 0, 4, 5, 8, 7, 6]
    state = torch.load(own_run / "mine.pth")
    heads = [name for name, value in state.items() if value.dim() and len(value) == 10]
    torch.save({**state, **{name: state[name][order] for name in heads}}, tmp_path / "turned.pth")
    head = 'seeds = [0]\nreferences = { fdr = "none" }'
    network = (
        f'[architecture]\nname = "digits_net"\noptions = {{ width = 4 }}\nweights = "turned.pth"\nclass_order = {order}'
    )
    nothing = '[[unlearners]]\nname = "folnrc"\noptions = { epochs = 1, learning_rate = 1e-12 }'
    manifest = write_manifest(tmp_path, manifest_text(WD, nothing, head=head, architecture=network))
    done = cli("run", manifest, "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    for method, outputs in (("folnrc", order), ("wd", [label for label in order if label < 8])):
        done = cli("export-model", tmp_path / "runs", "--only", method, "-o", tmp_path / "new.safetensors")
        assert done.code == 0, done.err
        assert "0 of 445 test images classified otherwise" in done.err
        new = load_file(tmp_path / "new.safetensors")
        for name in heads:
            assert torch.allclose(new[name], state[name][outputs], atol=1e-6)
        with safe_open(tmp_path / "new.safetensors", "pt") as file:
            assert file.metadata()["output_classes"] == " ".join(map(str, outputs))
        shown = re.findall(r"^(\d+)\. (\d)$", (tmp_path / "new.md").read_text(), re.M)
        assert shown == [(str(number), str(label)) for number, label in enumerate(outputs)]


def test_a_network_in_a_file_is_found_and_loaded_by_the_card(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make(classes, shape, *, width: int = 3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    network = '[architecture]\nname = "file:../net.py:make"\noptions = { width = 5 }'
    (tmp_path / "manifests").mkdir()
    text = manifest_text(WD, head='seeds = [0]\nreferences = { fdr = "none" }', architecture=network)
    manifest = write_manifest(tmp_path / "manifests", text)
    monkeypatch.chdir(tmp_path)
    assert cli("run", manifest, "--device", "cpu").code == 0
    done = cli("export-model", "runs", "-o", "new.safetensors")
    assert done.code == 0, done.err
    code = re.findall(r"^```python\n(.*?)^```", (tmp_path / "new.md").read_text(), re.M | re.S)[0]
    scope: dict = {}
    exec(code, scope)
    assert scope["model"](torch.zeros(2, 1, 8, 8)).shape == (2, 8)
    (tmp_path / "net.py").rename(tmp_path / "other.py")
    done = cli("export-model", "runs", "-o", "new.safetensors")
    assert done.code == 1
    assert done.err.startswith("file:../net.py:make: the file of the network is not here; looked at\n")


def test_onnx_gives_the_recorded_numbers(own_run: Path, tmp_path: Path) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed: pip install 'unlearnbench[onnx]'")
    done = cli("export-model", own_run / "runs", "--only", "wd", "-o", tmp_path / "new.onnx")
    assert done.code == 0, done.err
    assert "0 of 445 test images classified otherwise" in done.err
    assert (tmp_path / "new.onnx").stat().st_size > 1000


def test_a_file_that_does_not_give_the_recorded_numbers_is_not_left_behind(own_run: Path, tmp_path: Path) -> None:
    shutil.copytree(own_run / "runs", tmp_path / "runs")
    path = record_files(tmp_path / "runs")["erwp/seed-0.json"]
    other = json.loads(record_files(tmp_path / "runs")["wd/seed-0.json"].read_text())
    values = json.loads(path.read_text())
    values["files"]["features"] = other["files"]["features"]
    path.write_text(json.dumps({**values, "hash": content_hash(values)}))
    done = cli("export-model", path, "-o", tmp_path / "out" / "new.safetensors")
    assert done.code == 1
    assert "test images are classified otherwise than recorded; do not use it" in done.err
    assert list((tmp_path / "out").iterdir()) == []


def test_changed_weights_are_refused(own_run: Path, tmp_path: Path) -> None:
    shutil.copytree(own_run / "runs", tmp_path / "runs")
    model = tmp_path / "runs" / record(own_run, "erwp/seed-0.json")["files"]["model"]["path"]
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    done = cli("export-model", tmp_path / "runs", "--only", "erwp", "-o", tmp_path / "new.safetensors")
    assert (done.code, done.err.splitlines()[0]) == (1, f"{model}: its content is not what the record was made from")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "holds 3 methods; one can be taken at a time\n  Say which: --only erwp | folnrc | wd"),
        (["--only", "erwp"], "holds several seeds of erwp\n  Say which: --seed 0 | 1"),
        (["--only", "erwp", "--seed", "5"], "holds no finished method with seed 5\n  Seeds: 0, 1"),
        (["--only", "ewrp"], "holds no row of 'ewrp'\n  Did you mean 'erwp'? Valid: erwp, fdr, folnrc, original, wd"),
    ],
)
def test_a_row_that_is_not_one_is_asked_for(
    finished: FinishedRun, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = cli("export-model", finished.output, *arguments, "-o", tmp_path / "new.safetensors")
    assert (done.code, done.err) == (2, f"{finished.output}: {message}\n")


def test_names_of_files_that_readers_would_misread_are_refused(finished: FinishedRun, tmp_path: Path) -> None:
    for name, form in (("new.md", ""), ("new.bin", "safetensors"), ("new", "")):
        given = ["--format", form] if form else []
        done = cli("export-model", finished.output, "-o", tmp_path / name, *given)
        assert done.code == 2
        assert "the name of the weights has to end in .safetensors" in done.err


def test_no_file_is_replaced_that_was_not_exported(own_run: Path, tmp_path: Path) -> None:
    weights, card = tmp_path / "deployed.safetensors", tmp_path / "README.md"
    for file in (weights, card):
        file.write_text("precious")
    for name, message in (
        ("deployed.safetensors", f"{weights}: is there already, and no card beside it says that it was exported"),
        ("README.safetensors", f"{card}: is there already, and is not the card of an export"),
    ):
        done = cli("export-model", own_run / "runs", "--only", "wd", "-o", tmp_path / name, "--no-check")
        assert (done.code, done.err) == (2, f"{message}\n  Remove it, or name another: --output FILE\n")
    assert (weights.read_text(), card.read_text()) == ("precious", "precious")
    for _ in range(2):  # An export can be repeated.
        again = cli("export-model", own_run / "runs", "--only", "wd", "-o", tmp_path / "new.safetensors", "--no-check")
        assert again.code == 0, again.err


def test_records_without_a_store_cannot_be_exported(finished: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished.output / "records", tmp_path / "records")
    done = cli("export-model", tmp_path, "-o", tmp_path / "new.safetensors")
    assert done.err == f"{tmp_path}: not in an output folder of a run, which holds `records` and `store`\n"


def test_the_naming_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    network = NETWORK.unfilled()
    state = network.state_dict()
    for prefix in ("", "module.", "model.net."):
        torch.save({"state_dict": {f"{prefix}{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
        found = naming(tmp_path / "a.pth", network)
        assert (found["prefix"], found["left_out"]) == (prefix, [])
        assert found["sha256"] == file_hash(tmp_path / "a.pth")
    torch.save({f"other{number}": value for number, value in enumerate(state.values())}, tmp_path / "a.pth")
    assert (naming(tmp_path / "a.pth", network)["prefix"], naming(tmp_path / "a.pth", network)["left_out"]) == ("", [])
