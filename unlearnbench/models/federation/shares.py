"""The shares of a federation: how many images of each class a party holds, which ones, and when it takes part."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unlearnbench.models.federation.federation import Federation
from unlearnbench.seeds import derived_seed

# Batch normalisation cannot learn from a single image where the network has reduced it to one place.
FEWEST_IMAGES = 2

# Every cell of a plan asks for the shares of its seed.
Counts = tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)
def party_counts(federation: Federation, train_counts: tuple[int, ...], seed: int) -> Counts:
    """Return how many training images of each class each party holds.

    The numbers of images decide, so that a plan can be made and checked without reading any image. They depend on
    neither the party that unlearns nor the forget classes.

    Args:
        federation: The federation.
        train_counts: K numbers of training images.
        seed: Seed of the run.

    Returns:
        P rows of K numbers; each column adds up to the class's training images.
    """
    stream = np.random.default_rng(derived_seed(seed, "parties", federation.split))
    deal = _dealt if federation.split == "iid" else _spread
    return tuple(map(tuple, deal(federation, np.array(train_counts, dtype=np.int64), stream).tolist()))


def _dealt(federation: Federation, left: NDArray[np.int64], stream: np.random.Generator) -> NDArray[np.int64]:
    """Deal shuffled images to the parties, as equally as whole images allow; returns (P, K)."""
    whole, rest = divmod(int(left.sum()), federation.parties)
    rows = []
    for party in range(federation.parties):
        # The number of each class in a random part of what is left, without shuffling a million images for it.
        rows.append(stream.multivariate_hypergeometric(left, whole + (party < rest), method="marginals"))
        left = left - rows[-1]
    return np.stack(rows)


def _spread(federation: Federation, counts: NDArray[np.int64], stream: np.random.Generator) -> NDArray[np.int64]:
    """Cut each class into parts whose sizes are drawn from a symmetric Dirichlet distribution; returns (P, K)."""
    parts = stream.dirichlet(np.full(federation.parties, federation.alpha), size=len(counts))
    cuts = np.rint(parts.cumsum(axis=1) * counts[:, None]).astype(np.int64)
    # Rounding must not lose the last image.
    cuts[:, -1] = counts
    return np.diff(cuts, axis=1, prepend=0).T


def party_images(labels: NDArray[np.int64], counts: Counts, seed: int) -> list[NDArray[np.int64]]:
    """Return the images of each party: which ones, when it is known how many.

    Args:
        labels: (N,) class indices of all training images.
        counts: What `party_counts` returned for them.
        seed: Seed of the run.

    Returns:
        For each party the ascending positions of its images in `labels`; every image is at exactly one party.
    """
    shares: list[list[NDArray[np.int64]]] = [[] for _ in counts]
    for label, held in enumerate(zip(*counts, strict=True)):
        stream = np.random.default_rng(derived_seed(seed, "parties", "images", label))
        members = stream.permutation(np.flatnonzero(labels == label))
        for share, part in zip(shares, np.split(members, np.cumsum(held)[:-1]), strict=True):
            share.append(part)
    return [np.sort(np.concatenate(share)).astype(np.int64) for share in shares]


def sizes(counts: Counts, classes: Collection[int]) -> list[int]:
    """Return how many images of some classes each party holds."""
    return [sum(held[label] for label in classes) for held in counts]


def rounds_of(federation: Federation, held: list[int], seed: int) -> list[tuple[int, ...]]:
    """Return the parties that train in each round, in the order of their numbers.

    The server draws the same parties for Original and FDR. One without images to train on sends nothing.

    Args:
        federation: The federation.
        held: Number of images that each party trains on.
        seed: Seed of the run.
    """
    number = max(1, round(federation.participation * federation.parties))
    found = []
    if number == federation.parties:
        return [tuple(party for party in range(number) if held[party] >= FEWEST_IMAGES)] * federation.rounds
    for index in range(federation.rounds):
        stream = np.random.default_rng(derived_seed(seed, "parties", "round", index))
        drawn = np.sort(stream.permutation(federation.parties)[:number]).tolist()
        found.append(tuple(party for party in drawn if held[party] >= FEWEST_IMAGES))
    return found


def planned_passes(federation: Federation, held: list[int], seed: int) -> int:
    """Return how many images all parties read in all rounds; the arguments are those of `rounds_of`."""
    return federation.local_epochs * sum(held[party] for drawn in rounds_of(federation, held, seed) for party in drawn)
