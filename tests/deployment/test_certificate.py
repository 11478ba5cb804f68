"""The certificate: what it says is what was measured, it fits the paper, and changes to it are found."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FinishedRun
from support.commands import Done, cli
from support.records import record_files

from unlearnbench.deployment.certificate import certificate as certificate_module
from unlearnbench.deployment.certificate.certificate import recomputed_faults
from unlearnbench.deployment.certificate.findings import Files, stage_findings
from unlearnbench.deployment.certificate.limits import judged, overall
from unlearnbench.deployment.certificate.page import html_page, markdown_page
from unlearnbench.deployment.certificate.signature import content_digest
from unlearnbench.errors import DatasetError
from unlearnbench.experiment.manifest import Bound
from unlearnbench.metrics.features import open_features

pytestmark = pytest.mark.slow

CHOSEN = ("--only", "erwp", "--seed", "1")


def issue(finished: FinishedRun, folder: Path, *more: str | Path) -> Done:
    return cli("certificate", finished.output, *CHOSEN, "-o", folder / "page", "--on", "2026-11-27", *more)


@pytest.fixture(scope="module")
def issued(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issued")
    done = issue(finished, folder, "--by", "Jane <b>Roe</b> | Ltd")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [str(folder / f"page{ending}") for ending in (".json", ".html", ".md")]
    return folder


@pytest.fixture(scope="module")
def values(issued: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((issued / "page.json").read_text())
    return found


def record(finished: FinishedRun, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record_files(finished.output)[f"{name}/seed-1.json"].read_text())
    return found


def test_its_numbers_are_those_of_the_records(finished: FinishedRun, values: dict[str, Any]) -> None:
    for metric in ("forget_accuracy", "retain_accuracy", "forget_prototype_accuracy"):
        for moment, name in (("before", "original"), ("after", "erwp"), ("fdr", "fdr")):
            held = values["headline"][metric][moment]
            assert held["value"] == record(finished, name)["metrics"][metric]["value"]
            assert held["interval"][0] <= held["value"] <= held["interval"][1]
    probe = record(finished, "erwp")["metrics"]["probe_recovery"]["details"]
    assert values["recovery"]["probe"]["after"] == pytest.approx(probe["judged"])
    attack = record(finished, "erwp")["metrics"]["membership_inference"]["details"]
    assert values["recovery"]["membership"]["after"] == pytest.approx(attack["judged"])
    assert values["recovery"]["membership"]["fdr"] == pytest.approx(attack["fdr"])


def test_its_classes_are_counted_from_the_stored_outputs(finished: FinishedRun, values: dict[str, Any]) -> None:
    made = record(finished, "erwp")
    with open_features(finished.output / made["files"]["features"]["path"]) as features:
        predicted = features.array("test/logits").argmax(axis=1)
        labels = features.array("test/labels")
        for row in values["classes"]:
            own = labels == row["index"]
            assert row["after"]["count"] == int((predicted[own] == row["index"]).sum())
            assert row["after"]["images"] == int(own.sum())
            assert row["removed"] == (row["index"] in (8, 9))
        for row, label in zip(values["destinations"], (8, 9), strict=True):
            counts = np.bincount(predicted[labels == label], minlength=10)
            first = row["to"][0]
            assert first["share"] == counts.max() / counts.sum()
            assert first["name"] == str(counts.argmax())


def test_every_stage_is_that_of_the_records_and_needs_no_fdr(finished: FinishedRun, values: dict[str, Any]) -> None:
    made = [record(finished, name) for name in ("original", "erwp")]
    for found, metric in zip(values["stages"], ("layer_prototype_gap", "layer_probe_recovery"), strict=True):
        by_stage = made[1]["metrics"][metric]["details"]["by_stage"]
        # In the order of the network, which JSON's sorted keys do not keep.
        assert [row["stage"] for row in found["rows"]] == sorted(by_stage, key=int)
        for row in found["rows"]:
            recorded = by_stage[row["stage"]]
            assert [row["before"], row["after"], row["fdr"]] == [
                pytest.approx(recorded[name]) for name in ("original", "judged", "fdr")
            ]
    with contextlib.ExitStack() as opened:
        paths = [finished.output / one["files"]["features"]["path"] for one in made]
        before, after = (opened.enter_context(open_features(path)) for path in paths)
        without = stage_findings(Files(before, after, None))
    for found, whole in zip(without, values["stages"], strict=True):
        assert found["rows"] == [{**row, "fdr": None} for row in whole["rows"]]


def test_an_exported_file_can_be_matched_with_it(finished: FinishedRun, issued: Path, tmp_path: Path) -> None:
    for name in ("erwp", "folnrc"):
        chosen = ("--only", name, "--seed", "1", "--no-check")
        done = cli("export-model", finished.output, *chosen, "-o", tmp_path / f"{name}.pt")
        assert done.code == 0, done.err
    path = issued / "page.json"
    done = cli("certificate", "--verify", path, "--weights", tmp_path / "erwp.pt")
    assert f"{path}: {tmp_path / 'erwp.pt'} holds the weights of the model after the removal" in done.out
    digest = json.loads(path.read_text())["model"]["after"]["tensors_sha256"]
    assert digest in (tmp_path / "erwp.md").read_text()
    assert digest in (issued / "page.html").read_text()
    done = cli("certificate", "--verify", path, "--weights", tmp_path / "folnrc.pt")
    assert (done.code, done.err) == (
        1,
        f"{tmp_path / 'folnrc.pt'}: holds other weights than those of the model after the removal\n",
    )


def test_it_names_models_data_and_method(finished: FinishedRun, values: dict[str, Any]) -> None:
    made, original = record(finished, "erwp"), record(finished, "original")
    assert values["removed"] == ["8", "9"]
    assert values["model"]["after"]["sha256"] == made["files"]["model"]["sha256"]
    assert values["model"]["before"]["sha256"] == original["files"]["model"]["sha256"]
    assert values["data"]["revision"] == made["problem"]["dataset_revision"]
    assert values["record"]["sha256"] == made["hash"]
    assert values["method"]["options"] == made["method"]["options"]
    assert values["issued"] == {"by": "Jane <b>Roe</b> | Ltd", "on": "2026-11-27"}


def test_text_from_outside_is_escaped_on_both_pages(issued: Path) -> None:
    page = (issued / "page.html").read_text()
    assert "<b>Roe</b>" not in page
    assert "Jane &lt;b&gt;Roe&lt;/b&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_it_claims_no_proof_and_says_what_it_does_not_show(issued: Path) -> None:
    for name in ("page.html", "page.md"):
        text = (issued / name).read_text()
        assert "What this does not show" in text
        assert "proof" not in text.lower()
        assert "does not show that nothing of the removed classes can be recovered" in text


def test_both_pages_have_every_number_of_the_headline(issued: Path, values: dict[str, Any]) -> None:
    for name in ("page.html", "page.md"):
        text = (issued / name).read_text()
        for row in (*values["headline"].values(), *values["classes"]):
            assert f"{100 * row['after']['value']:.1f}" in text


def test_an_untouched_certificate_is_verified_down_to_its_numbers(finished: FinishedRun, issued: Path) -> None:
    done = cli("certificate", "--verify", issued / "page.json", "--runs", finished.output)
    assert done.code == 0, done.err
    assert [line.removeprefix(f"{issued / 'page.json'}: ") for line in done.out.splitlines()] == [
        "the content is that of its hash",
        "not signed: anybody can have written it",
        "page.html says the same",
        "page.md says the same",
        f"every number comes out the same from {finished.output}",
    ]


def test_a_changed_number_is_found_by_its_hash_and_with_a_new_hash_by_the_run(
    finished: FinishedRun, issued: Path, tmp_path: Path
) -> None:
    values = json.loads((issued / "page.json").read_text())
    values["headline"]["forget_accuracy"]["after"]["value"] = 0.0123
    path = tmp_path / "page.json"
    path.write_text(json.dumps(values))
    done = cli("certificate", "--verify", path)
    assert (done.code, done.err) == (1, f"{path}: its content was changed: its hash is another one\n")
    path.write_text(json.dumps({**values, "sha256": content_digest(values)}))
    assert cli("certificate", "--verify", path).code == 0
    done = cli("certificate", "--verify", path, "--runs", finished.output)
    assert (done.code, done.err) == (1, f"{path}: headline: otherwise in {finished.output}\n")


def test_numbers_are_verified_where_the_data_set_is_not(
    finished: FinishedRun, issued: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, options: dict[str, Any]) -> None:
        raise DatasetError(f"{name} is not here")

    monkeypatch.setattr(certificate_module, "open_dataset", absent)
    assert recomputed_faults(json.loads((issued / "page.json").read_text()), finished.output) == []
    values = json.loads((issued / "page.json").read_text())
    removed = next(row for row in values["classes"] if row["removed"])
    values["removed"][0] = removed["name"] = "another"
    found = recomputed_faults(values, finished.output)
    assert [line.partition(":")[0] for line in found] == ["removed", "classes"]


@pytest.mark.parametrize("content", [{}, {"classes": 3}, {"record": {"fdr": "none"}, "model": []}])
def test_any_content_with_the_right_hash_is_no_certificate(tmp_path: Path, content: dict[str, Any]) -> None:
    values = {"kind": "unlearnbench certificate", "format": 1, **content}
    (tmp_path / "a.json").write_text(json.dumps({**values, "sha256": content_digest(values)}))
    done = cli("certificate", "--verify", tmp_path / "a.json")
    assert done.code == 1
    assert done.err.startswith(f"{tmp_path / 'a.json'}: its content is not that of a certificate (")


def test_a_changed_page_is_found(issued: Path, tmp_path: Path) -> None:
    shutil.copytree(issued, tmp_path / "copy")
    page = tmp_path / "copy" / "page.html"
    for changed in (page.read_bytes().replace(b"Not signed", b"Signed"), b"\xff"):
        page.write_bytes(changed)
        done = cli("certificate", "--verify", tmp_path / "copy" / "page.json")
        assert (done.code, done.err) == (1, f"{page}: does not say what page.json says\n")


def test_its_files_may_get_other_names(issued: Path, tmp_path: Path) -> None:
    for ending in (".json", ".html", ".md"):
        shutil.copy(issued / f"page{ending}", tmp_path / f"other{ending}")
    done = cli("certificate", "--verify", tmp_path / "other.json")
    assert "other.html says the same" in done.out, done.err


def test_a_signature_holds_only_for_its_key_and_its_content(finished: FinishedRun, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'unlearnbench[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    for name in ("mine", "other"):
        key = Ed25519PrivateKey.generate()
        (tmp_path / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (tmp_path / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    assert issue(finished, tmp_path, "--key", tmp_path / "mine.pem").code == 0
    path = tmp_path / "page.json"
    done = cli("certificate", "--verify", path, "--public-key", tmp_path / "mine.pub")
    assert done.code == 0, done.err
    assert "signed with the key" in done.out
    done = cli("certificate", "--verify", path, "--public-key", tmp_path / "other.pub")
    assert (done.code, done.err) == (1, f"{path}: it is signed with another key than {tmp_path / 'other.pub'}\n")
    values = json.loads(path.read_text())
    values["removed"] = ["7"]
    path.write_text(json.dumps({**values, "sha256": content_digest(values)}))
    done = cli("certificate", "--verify", path)
    assert done.code == 1
    assert f"{path}: its content was changed after it was signed" in done.err
    done = issue(finished, tmp_path, "--key", tmp_path / "mine.pub")
    assert (done.code, done.err.splitlines()[0]) == (
        1,
        f"{tmp_path / 'mine.pub'}: not a private key in PEM without a password",
    )


def test_limits_decide_and_the_exit_code_says_so(finished: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("forget_accuracy = { max = 1.0 }\nretain_accuracy = { min = 0.999 }\n")
    done = issue(finished, tmp_path, "--limits", tmp_path / "limits.toml")
    assert (done.code, done.err.splitlines()[-1]) == (1, "limits: failed")
    values = json.loads((tmp_path / "page.json").read_text())
    assert {row["name"]: row["verdict"] for row in values["limits"]} == {
        "forget_accuracy": "passed",
        "retain_accuracy": "failed",
    }
    assert "Limits not met" in (tmp_path / "page.html").read_text()
    (tmp_path / "limits.toml").write_text("forget_accuracy = { max = 1.0 }\n")
    done = issue(finished, tmp_path, "--limits", tmp_path / "limits.toml")
    assert (done.code, done.err.splitlines()[-1]) == (0, "limits: passed")


def test_a_share_whose_interval_crosses_its_limit_is_undecided(values: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(values))
    # 0 of 20 images: Wilson's 95 % interval ends at 16.1 %.
    changed["headline"]["forget_accuracy"]["after"] = {"count": 0, "images": 20, "value": 0.0, "interval": [0.0, 0.161]}
    for limit, verdict in ((0.05, "undecided"), (0.17, "passed")):
        rows = judged({"forget_accuracy": Bound(max=limit)}, changed)
        assert (rows[0]["verdict"], overall(rows)) == (verdict, verdict)
    assert overall([]) is None
    rows = judged({"forget_accuracy": Bound(max=0.05), "retain_accuracy": Bound(min=1.0)}, changed)
    assert overall(rows) == "failed"


def test_what_was_lost_is_counted_among_the_outputs_that_stay(values: dict[str, Any]) -> None:
    kept = values["headline"]["masked_retain_accuracy"]
    rows = judged({"retain_loss": Bound(max=0.0)}, values)
    assert rows[0]["value"] == pytest.approx(kept["before"]["value"] - kept["after"]["value"])
    worst = max(row["before"]["value"] - row["after"]["value"] for row in values["classes"] if not row["removed"])
    assert judged({"worst_class_loss": Bound(max=1.0)}, values)[0]["value"] == worst


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "forget_acuracy = { max = 0.05 }",
            ":1: forget_acuracy: nothing of this name can be limited\n  Did you mean 'forget_accuracy'? Valid: "
            "few_shot, forget_accuracy, forget_prototype_accuracy, membership, probe, retain_accuracy, retain_loss, "
            "worst_class_loss",
        ),
        ("\nprobe = { max = 5 }", ":2: probe: limits are fractions between 0 and 1, not percent"),
        ("probe = 5", ":1: probe: give min or max, as fractions: { max = 0.05 }"),
        ("probe = { min = 0.2, max = 0.1 }", ":1: probe: min 0.2 is above max 0.1"),
        ("", ": states no limit\n  For example: forget_accuracy = { max = 0.05 }"),
    ],
)
def test_faults_of_limits_are_named(finished: FinishedRun, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    done = issue(finished, tmp_path, "--limits", path)
    assert (done.code, done.err) == (1, f"{path}{message}\n")


def test_no_file_is_replaced_that_is_not_of_a_certificate(finished: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("precious")
    done = cli("certificate", finished.output, "--only", "wd", "--seed", "0", "-o", tmp_path / "README")
    message = f"{tmp_path}/README.md: is there already, and is not of a certificate"
    assert (done.code, done.err) == (2, f"{message}\n  Remove it, or name another: --output NAME\n")
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
    for _ in range(2):  # A certificate can be issued again.
        again = cli("certificate", finished.output, "--only", "wd", "--seed", "0", "-o", tmp_path / "new")
        assert again.code == 0, again.err


def test_no_certificate_of_another_cell_is_replaced(finished: FinishedRun, tmp_path: Path) -> None:
    assert issue(finished, tmp_path).code == 0
    before = (tmp_path / "page.json").read_bytes()
    done = cli("certificate", finished.output, "--only", "wd", "--seed", "1", "-o", tmp_path / "page")
    told = f"{tmp_path}/page.json: is there already, the certificate of erwp, seed 1, of short"
    assert (done.code, done.err) == (2, f"{told}\n  Remove it, or name another: --output NAME\n")
    assert (tmp_path / "page.json").read_bytes() == before


def test_what_is_still_recognised_is_said_first(issued: Path, values: dict[str, Any]) -> None:
    fae = values["headline"]["forget_accuracy"]
    assert fae["after"]["value"] > max(0.05, 0.1 * fae["before"]["value"])
    shares = [f"{100 * fae[when]['value']:.1f} %" for when in ("after", "before")]
    told = f"The model still recognises them: {shares[0]} of their test images, {shares[1]} before."
    markdown, html = ((issued / f"page.{ending}").read_text() for ending in ("md", "html"))
    assert f"\n\n{told} To be removed: **8, 9**" in markdown
    assert "To be removed from the model: <b>8, 9</b>" in html
    assert told in html
    fae["after"]["value"] = 0.05
    assert "Removed: **8, 9**" in markdown_page(values)
    assert "Removed from the model: <b>8, 9</b>" in html_page(values)


def test_original_is_no_removal(finished: FinishedRun, tmp_path: Path) -> None:
    for command in (("certificate",), ("export-model",)):
        done = cli(*command, finished.output, "--only", "original", "--seed", "0", "-o", tmp_path / "x.pth")
        assert done.code == 2
        assert done.err.startswith(f"{finished.output}: Original is the model before the removal\n")


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    for text, message in (("{}", "not a certificate"), ("[", "not a JSON file"), ("[" * 100_000, "not a JSON file")):
        (tmp_path / "a.json").write_text(text)
        done = cli("certificate", "--verify", tmp_path / "a.json")
        assert (done.code, done.err.splitlines()[0]) == (1, f"{tmp_path / 'a.json'}: {message}")


def test_a_thousand_classes_show_the_removed_and_the_most_changed(values: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(values))
    template = changed["classes"][0]
    changed["classes"] = [
        {**template, "index": number, "name": f"kind{number}", "removed": number == 999} for number in range(1000)
    ]
    changed["classes"][500]["after"] = {**template["after"], "value": 0.0}
    for page in (html_page(changed), markdown_page(changed)):
        shown = set(re.findall(r"kind(\d+)", page))
        assert len(shown) == 24
        assert {"500", "999"} <= shown
