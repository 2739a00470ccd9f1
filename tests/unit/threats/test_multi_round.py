"""Laws of the attacks that separate clients by the sums of several rounds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedrec_flower.models.abilities import BilinearForm
from fedrec_flower.threats.multi_round import regression_scores, separation_scores
from fedrec_flower.threats.observation import ObservedSum
from fedrec_flower.threats.source_separation import assign_sources, separate

Floats = NDArray[np.float64]

NUM_CLIENTS, NUM_ITEMS, DIM, NUM_ROUNDS, COHORT = 24, 400, 16, 20, 8
FACTORS = BilinearForm("user", "item", "bias")


@pytest.fixture(scope="module")
def histories() -> Floats:
    """1 for the items of each client."""
    rng = np.random.default_rng(1)
    return (rng.random((NUM_CLIENTS, NUM_ITEMS)) < 0.08).astype(np.float64)


@pytest.fixture(scope="module")
def sums(histories: Floats) -> list[ObservedSum]:
    """Sums of rounds in which each client changes items along its own secret vector."""
    rng = np.random.default_rng(2)
    vectors, found = rng.normal(size=(NUM_CLIENTS, DIM)), []
    for round_ in range(NUM_ROUNDS):
        cohort = np.sort(rng.choice(NUM_CLIENTS, COHORT, replace=False))
        negatives = rng.poisson(0.1, (COHORT, NUM_ITEMS))
        change = 4 * histories[cohort] - 2 * negatives
        seen = {"item": change.T @ vectors[cohort], "bias": change.sum(axis=0)[:, None]}
        found.append(ObservedSum(round_ + 1, cohort, {}, seen, 1.0, np.inf, 0.0))
        vectors = vectors + 0.1 * rng.normal(size=vectors.shape)
    return found


def accuracy(scores: Floats, histories: Floats) -> float:
    """The mean correlation of scores with the histories that they are about."""
    pairs = zip(scores, histories, strict=True)
    return float(np.mean([np.corrcoef(score, history)[0, 1] for score, history in pairs]))


def test_a_sum_of_fewer_clients_than_dimensions_is_separated(
    sums: list[ObservedSum], histories: Floats
) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    first = sums[0]
    rng = np.random.default_rng(0)
    found = separate(first.seen["item"], first.seen["bias"][:, 0], first.cohort, rng)
    alike = np.corrcoef(found.sources.T, histories[first.cohort])[:COHORT, COHORT:]
    assert np.median(alike.max(axis=0)) > 0.8
    assert (alike.argmax(axis=0) < COHORT).all()


def test_sources_are_assigned_to_clients_by_cohorts(
    sums: list[ObservedSum], histories: Floats
) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    rng = np.random.default_rng(0)
    rounds = [separate(s.seen["item"], s.seen["bias"][:, 0], s.cohort, rng) for s in sums]
    for each, owned in zip(rounds, assign_sources(rounds, NUM_CLIENTS), strict=True):
        assert np.array_equal(np.sort(owned), np.arange(COHORT))
        assert each.sources.shape == (NUM_ITEMS, COHORT)
    clients = np.arange(NUM_CLIENTS)
    assert accuracy(separation_scores(rounds, clients, NUM_CLIENTS), histories) > 0.7
    # With the cohorts of other rounds, sources cannot be assigned to clients.
    shifted = [
        type(each)(other.cohort, each.sources, each.vectors)
        for each, other in zip(rounds, [*rounds[1:], rounds[0]], strict=True)
    ]
    assert accuracy(separation_scores(shifted, clients, NUM_CLIENTS), histories) < 0.45


def test_regression_infers_items_from_participation_and_biases(
    sums: list[ObservedSum], histories: Floats
) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    clients = np.arange(NUM_CLIENTS)
    plain = regression_scores(sums, FACTORS, clients, None, NUM_CLIENTS)
    assert accuracy(plain, histories) > 0.2
    shifted = [
        ObservedSum(s.round, o.cohort, {}, s.seen, 1.0, np.inf, 0.0)
        for s, o in zip(sums, [*sums[1:], sums[0]], strict=True)
    ]
    assert (
        abs(accuracy(regression_scores(shifted, FACTORS, clients, None, NUM_CLIENTS), histories))
        < 0.1
    )


def test_known_activities_improve_the_regression(
    sums: list[ObservedSum], histories: Floats
) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    clients, known = np.arange(NUM_CLIENTS), np.ones(NUM_CLIENTS, np.int64)
    even = regression_scores(sums, FACTORS, clients, known, NUM_CLIENTS)
    np.testing.assert_allclose(even, regression_scores(sums, FACTORS, clients, None, NUM_CLIENTS))
    known[0] = 0
    assert not regression_scores(sums, FACTORS, clients, known, NUM_CLIENTS)[0].any()
    del histories
