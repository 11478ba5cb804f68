"""The shares of a federation, and the rounds in which parties take part."""

from __future__ import annotations

import numpy as np
import pytest

from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import party_counts, party_images, planned_passes, rounds_of, sizes

TRAIN_COUNTS = (500, 300, 7, 0, 193)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), TRAIN_COUNTS))


def federation(**settings: object) -> Federation:
    return Federation.model_validate({"parties": 10, "party": 0, "rounds": 3, **settings})


IID = federation()
UNLIKE = federation(split="dirichlet", alpha=0.1)


@pytest.mark.parametrize("chosen", [IID, UNLIKE, federation(parties=3, split="dirichlet", alpha=1e-3)])
@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_every_image_is_at_exactly_one_party(chosen: Federation, seed: int) -> None:
    counts = party_counts(chosen, TRAIN_COUNTS, seed)
    assert np.sum(counts, axis=0).tolist() == list(TRAIN_COUNTS)
    parts = party_images(LABELS, counts, seed)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(1000))
    for held, part in zip(counts, parts, strict=True):
        assert np.bincount(LABELS[part], minlength=5).tolist() == list(held)
        assert (np.diff(part) > 0).all()


def test_the_shares_of_an_iid_federation_differ_by_one_image() -> None:
    held = sizes(party_counts(federation(parties=7), TRAIN_COUNTS, 0), range(5))
    assert sorted(held) == [142, 143, 143, 143, 143, 143, 143]


def test_an_iid_share_is_as_a_random_tenth_of_the_images() -> None:
    # Of 1,000 images with 500 of the first class, a random 100 hold 50 of it on average, with variance
    # 100 * 0.5 * 0.5 * 900 / 999.
    first = [party_counts(IID, TRAIN_COUNTS, seed)[3][0] for seed in range(2000)]
    assert np.mean(first) == pytest.approx(50, abs=0.5)
    assert np.var(first) == pytest.approx(100 * 0.25 * 900 / 999, rel=0.1)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 20.0])
def test_the_spread_of_a_dirichlet_split_is_that_of_its_alpha(alpha: float) -> None:
    # A party's part of a class has the mean 1 / P and the variance (1 / P)(1 - 1 / P) / (P alpha + 1).
    chosen = federation(split="dirichlet", alpha=alpha)
    parts = [party_counts(chosen, (100_000,), seed)[4][0] / 100_000 for seed in range(3000)]
    assert np.mean(parts) == pytest.approx(0.1, abs=0.02)
    assert np.var(parts) == pytest.approx(0.09 / (10 * alpha + 1), rel=0.15)


def test_a_seed_always_gives_the_same_shares_and_another_seed_others() -> None:
    for chosen in (IID, UNLIKE):
        counts = party_counts(chosen, TRAIN_COUNTS, 3)
        party_counts.cache_clear()
        assert party_counts(chosen, TRAIN_COUNTS, 3) == counts
        assert party_counts(chosen, TRAIN_COUNTS, 4) != counts
    first, again, other = (party_images(LABELS, party_counts(IID, TRAIN_COUNTS, 0), seed)[0] for seed in (0, 0, 1))
    assert (first.tolist() == again.tolist(), first.tolist() == other.tolist()) == (True, False)


def test_the_party_that_unlearns_changes_nobody_s_share() -> None:
    shares = {party_counts(federation(party=party), TRAIN_COUNTS, 0) for party in (None, 0, 7)}
    assert len(shares) == 1


def test_so_many_parties_train_in_a_round_and_each_has_its_turn() -> None:
    drawn = rounds_of(federation(rounds=200, participation=0.3), [10] * 10, 0)
    assert {len(parties) for parties in drawn} == {3}
    assert all(list(parties) == sorted(set(parties)) for parties in drawn)
    turns = np.bincount([party for parties in drawn for party in parties], minlength=10)
    assert turns.sum() == 600
    assert turns.min() > 30
    assert rounds_of(federation(rounds=200, participation=0.3), [10] * 10, 0) == drawn
    assert rounds_of(federation(participation=0.01), [10] * 10, 0) != [()] * 3


def test_a_party_with_one_image_or_none_sits_out() -> None:
    assert rounds_of(federation(rounds=1), [5, 1, 0, 2, 5, 5, 5, 5, 5, 5], 0) == [(0, 3, 4, 5, 6, 7, 8, 9)]


def test_the_passes_of_all_rounds_are_known_before() -> None:
    held = [5, 1, 0, 2, 5, 5, 5, 5, 5, 5]
    assert planned_passes(federation(local_epochs=4), held, 0) == 3 * 4 * 37
    part = federation(participation=0.5, local_epochs=2)
    expected = 2 * sum(held[party] for parties in rounds_of(part, held, 0) for party in parties)
    assert planned_passes(part, held, 0) == expected < 3 * 2 * 37
