"""Manifests of federations for tests."""

from __future__ import annotations

from support.manifests import SEEDS, TRAINING, WD, manifest_text

FEDERATION = "[federation]\nparties = 10\nparty = 0\nrounds = 2"
FORGET = '[problem]\nforget_classes = ["8", "9"]'


def federated_text(
    *unlearners: str, head: str = SEEDS, problem: str = FORGET, federation: str = FEDERATION, training: str = TRAINING
) -> str:
    """Return a small manifest with a federation: two rounds of ten parties."""
    # The federation comes after the training, so that the lines of what is before it are those of any small manifest.
    return manifest_text(f"{federation}", *(unlearners or (WD,)), head=head, problem=problem, training=training)
