"""Issuing a certificate as three files, and verifying one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from unlearnbench.deployment.certificate.certificate import certificate, read_certificate, recomputed_faults
from unlearnbench.deployment.certificate.limits import read_limits
from unlearnbench.deployment.certificate.page import html_page, markdown_page
from unlearnbench.deployment.certificate.signature import sign, verify_signature
from unlearnbench.deployment.deployable import state_digest
from unlearnbench.deployment.row import FinishedCell
from unlearnbench.errors import InvalidFileError, StoreError, UnlearnBenchError, os_reason
from unlearnbench.models.checkpoints import read_state

PAGES = {".html": html_page, ".md": markdown_page}


def issue(
    cell: FinishedCell, output: Path, limits: Path | None, key: Path | None, issued_by: str, issued_on: str
) -> tuple[list[Path], str | None]:
    """Write the certificate of a finished cell as JSON, HTML and markdown.

    Args:
        cell: The cell.
        output: Path of the files without their endings.
        limits: File of the limits; None if none are stated.
        key: Private key to sign with; None leaves it unsigned.
        issued_by: Who issues it.
        issued_on: When.

    Returns:
        The files, and the verdict on the limits, None if none were stated.

    Raises:
        InvalidFileError: If a file is not what its record was made from, or limits or key cannot be used.
        StoreError: If a file cannot be written.
        UnlearnBenchError: If a file would be replaced that is no certificate.
    """
    paths = {ending: output.with_name(output.name + ending) for ending in (".json", *PAGES)}
    _check_free(paths, cell)
    values = certificate(cell, read_limits(limits) if limits else {}, issued_by, issued_on)
    if key is not None:
        values["signature"] = sign(values, key)
    texts = {
        ".json": json.dumps(values, indent=1) + "\n",
        **{end: page(values) for end, page in PAGES.items()},
    }
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            paths[ending].write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{output}: cannot be written: {os_reason(error)}") from error
    return list(paths.values()), values["verdict"]


def _check_free(paths: Mapping[str, Path], cell: FinishedCell) -> None:
    """Raise if a file is there, unless all are those of an earlier certificate of the same cell."""
    there = [path for path in paths.values() if path.exists()]
    if not there:
        return
    record = cell.record
    try:
        earlier = read_certificate(paths[".json"])
        told = [earlier["record"]["manifest"], earlier["method"]["label"], earlier["method"]["seed"]]
    except (InvalidFileError, LookupError, TypeError):
        what = f"{there[0]}: is there already, and is not of a certificate"
    else:
        if told == [record.manifest_name, record.method.label, record.seed]:
            return
        what = f"{paths['.json']}: is there already, the certificate of {told[1]}, seed {told[2]}, of {told[0]}"
    raise UnlearnBenchError(f"{what}\n  Remove it, or name another: --output NAME")


def verify(path: Path, public_key: Path | None, runs: Path | None, weights: Path | None = None) -> list[str]:
    """Return, one line each, what was found to be right about a certificate.

    The content is compared with its hash, its signature and, if they lie beside it, its pages. With an output folder
    everything measured is computed anew.

    Args:
        path: The certificate's JSON file.
        public_key: Public key that it must be signed with; None accepts any key, or none.
        runs: Output folder of the run; None leaves the numbers unchecked.
        weights: File that is to hold the weights of the model after the removal; None leaves that unchecked.

    Raises:
        InvalidFileError: If anything is not right, with all of it.
    """
    values = read_certificate(path)
    pages = _pages(path, values)
    faults, right = [], ["the content is that of its hash"]
    if "signature" in values or public_key is not None:
        try:
            print_of_key = verify_signature(values, public_key)
            whose = f"{public_key}" if public_key else "whose it is, it cannot say: compare with --public-key"
            right.append(f"signed with the key {print_of_key} ({whose})")
        except InvalidFileError as error:
            faults.append(f"{path}: {error}")
    else:
        right.append("not signed: anybody can have written it")
    for ending, page in pages.items():
        beside = path.with_suffix(ending)
        if beside.is_file():
            if beside.read_bytes().replace(b"\r\n", b"\n") == page.encode():
                right.append(f"{beside.name} says the same")
            else:
                faults.append(f"{beside}: does not say what {path.name} says")
    if weights is not None:
        if state_digest(read_state(weights)[0]) == values["model"]["after"]["tensors_sha256"]:
            right.append(f"{weights} holds the weights of the model after the removal")
        else:
            faults.append(f"{weights}: holds other weights than those of the model after the removal")
    if runs is not None:
        found = recomputed_faults(values, runs)
        faults += [f"{path}: {fault}" for fault in found]
        if not found:
            right.append(f"every number comes out the same from {runs}")
    if faults:
        raise InvalidFileError("\n".join(faults))
    return right


def _pages(path: Path, values: dict[str, Any]) -> dict[str, str]:
    """Return the pages of a certificate by their endings; anybody can give any content the right hash."""
    try:
        return {ending: page(values) for ending, page in PAGES.items()}
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidFileError(f"{path}: its content is not that of a certificate ({reason})") from error
