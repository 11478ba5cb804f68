"""Manifests of federations for tests."""

from __future__ import annotations

from support.manifests import SEEDS, TRAINING, WD, manifest_text

FEDERATION = "[federation]\nparties = 10\nparty = 0\nrounds = 2"
# Three parties who are not alike.
THREE = f'{FEDERATION.replace("parties = 10", "parties = 3")}\nsplit = "dirichlet"\nalpha = 0.3'
# A module with an engine of one strategy, which remembers the number of rounds that it has played.
ENGINE = {
    "their_engine": '''
"""An engine."""
from contextlib import contextmanager

from unlearnbench.errors import PluginError, did_you_mean


def theirs(strategy: str, *, rate: float = 1.0):
    """Play rounds.

    Args:
        strategy: Its one strategy is Mean.
        rate: Rate, which it notes.

    Source: a test.
    """
    if strategy != "Mean":
        raise PluginError(f"theirs has no strategy {strategy!r}{did_you_mean(strategy, ['Mean'])}")
    return Engine()


class Engine:
    """The engine."""

    provenance = {"libraries": {"theirs": "1.0"}}

    @contextmanager
    def playing(self, order, device, threads, advance):
        import torch

        from unlearnbench.models.federation.training import averaged

        def play(training, drawn):
            assert training.federation == order.federation
            training.memory = {"rounds": training.memory.get("rounds", torch.tensor(0)) + 1}
            return averaged(training.sent(drawn))

        yield play
'''
}
FORGET = '[problem]\nforget_classes = ["8", "9"]'


def federated_text(
    *unlearners: str, head: str = SEEDS, problem: str = FORGET, federation: str = FEDERATION, training: str = TRAINING
) -> str:
    """Return a small manifest with a federation: two rounds of ten parties."""
    # The federation comes after the training, so that the lines of what is before it are those of any small manifest.
    return manifest_text(f"{federation}", *(unlearners or (WD,)), head=head, problem=problem, training=training)
