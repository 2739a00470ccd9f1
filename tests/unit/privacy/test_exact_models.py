"""Laws of privacy for closed-form models: contributions are bounded, answers are debiased."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from math import exp
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy.stats import beta, chi2, norm

from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.core.random import Secret
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.models.closed_form import ClosedFormRecommender, Noise
from fedrec_flower.models.ease import EASE
from fedrec_flower.models.itemknn import ItemKNN
from fedrec_flower.models.ops.cooccurrence import debiased, symmetric
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.privacy.central import CentralDP
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.randomized_response import RandomizedResponse
from fedrec_flower.strategies.base import RoundInfo
from fedrec_flower.strategies.sufficient_statistics import solved
from tests.unit.privacy.test_central import make

if TYPE_CHECKING:
    from flwr.app import Message

    from tests.helpers.federations import Federate, Federated

NUM_ITEMS = 7
MODELS: dict[str, Callable[[], ClosedFormRecommender]] = {
    "popularity": lambda: Popularity(1, NUM_ITEMS),
    "itemknn": lambda: ItemKNN(1, NUM_ITEMS, 3, 0.0),
    "ease": lambda: EASE(1, NUM_ITEMS, 1.0),
}
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)

NO_NOISE = ("privacy.target_epsilon=null", "privacy.noise_multiplier=0.0", "min_completion=0.0")
SILOS = ("partition=silo_random", "partition.num_clients=4", "federation.num_nodes=4")
ANSWERS = ("privacy=randomized_response", "num_rounds=1")


def columns(items: list[list[int]]) -> Columns:
    flat = np.array([item for own in items for item in own], np.int32)
    return Columns(starts([len(own) for own in items]), flat, None)


def client(items: list[list[int]]) -> ClientData:
    """A client with so many users."""
    nothing = columns([[] for _ in items])
    codes, attributes = np.arange(len(items), dtype=np.int32), np.zeros((len(items), 0), np.float32)
    return ClientData(0, 1, 0, codes, columns(items), nothing, nothing, attributes)


def sent(reply: "Message") -> NDArray[np.float64]:
    """All values of a reply, flat."""
    arrays = reply.content.array_records["update"].values()
    return np.concatenate([array.numpy().astype(np.float64).reshape(-1) for array in arrays])


def training(ran: "Federated") -> "list[Message]":
    return [m for m in ran.tap.replies if m.metadata.message_type == "train"]


# --- central privacy: the sum that a client sends is bounded ------------------------------------

# The items of each user of each client, with empty histories and repeated items.
ITEMS = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=9)
CLIENTS = st.lists(st.lists(ITEMS, min_size=1, max_size=12), min_size=1, max_size=4)


@lru_cache
def clipping(bound: float) -> CentralDP:
    return make(clip_norm=bound, noise_multiplier=0.0, unit="client")


def bounded(
    model: ClosedFormRecommender, privacy: CentralDP, clients: list[list[list[int]]]
) -> NDArray[np.float64]:
    """The message of a node with clients: float32, as float64."""
    history = columns([own for users in clients for own in users])
    offsets = starts([len(users) for users in clients])
    share = privacy.user_weights(model, history, offsets)
    sums = model.statistics(history, {}, share)
    whole = np.concatenate([value.astype(np.float32) for value in sums.values()])
    return whole.astype(np.float64)


@EVERY_MODEL
@settings(max_examples=20)
@given(clients=CLIENTS, bound=st.sampled_from([0.3, 2.0, 17.0]))
def test_sums_with_and_without_a_client_differ_by_at_most_the_clip_norm(
    model: str, clients: list[list[list[int]]], bound: float
) -> None:
    """Unit=client bounds a client's message for any number of users."""
    exact, privacy = MODELS[model](), clipping(bound)
    whole = bounded(exact, privacy, clients)
    for place in range(len(clients)):
        others = clients[:place] + clients[place + 1 :]
        alone = bounded(exact, privacy, [clients[place]])
        rest = bounded(exact, privacy, others) if others else np.zeros_like(alone)
        assert np.linalg.norm(alone) <= bound
        # Sums in float32 also differ by rounding errors, which `noise_std` covers.
        rounding = 1 + len(clients) * 2**-23
        assert np.linalg.norm(whole - rest) <= bound * rounding


@EVERY_MODEL
@settings(max_examples=20)
@given(clients=CLIENTS)
def test_statistic_norms_are_those_of_a_clients_message(
    model: str, clients: list[list[list[int]]]
) -> None:
    """Unit=client bounds a client's message for any number of users."""
    exact = MODELS[model]()
    history = columns([own for users in clients for own in users])
    found = exact.statistic_norms(history, starts([len(users) for users in clients]))
    for users, length in zip(clients, found, strict=True):
        sums = exact.statistics(columns(users), {})
        assert length == pytest.approx(np.linalg.norm(np.concatenate(list(sums.values()))))


@EVERY_MODEL
def test_norms_of_a_client_with_more_users_than_items_are_the_same(model: str) -> None:
    """Unit=client bounds a client's message for any number of users."""
    users = np.random.default_rng(1).random((5 * NUM_ITEMS, NUM_ITEMS)) < 0.4
    items = [np.flatnonzero(own).tolist() for own in users]
    exact = MODELS[model]()
    sums = exact.statistics(columns(items), {})
    length = exact.statistic_norms(columns(items), np.array([0, len(items)]))
    assert length == pytest.approx(np.linalg.norm(np.concatenate(list(sums.values()))))


@EVERY_MODEL
def test_unit_client_bounds_the_message_of_a_silo(federate: "Federate", model: str) -> None:
    """The clip norm once bounded each user: a silo moved the sum by as many clip norms."""
    asked = (f"model={model}", "privacy=central_dp", "privacy.unit=client", "privacy.clip_norm=0.5")
    ran = federate(*asked, *NO_NOISE, *SILOS, "num_rounds=1")
    lengths = [np.linalg.norm(sent(reply)) for reply in training(ran)]
    assert len(lengths) == 4
    assert max(lengths) <= 0.5
    assert lengths == pytest.approx([0.5] * 4, rel=1e-5)
    # A weight does not reveal the number of users either.
    weights = {m.content.metric_records["metrics"]["num_examples"] for m in training(ran)}
    assert weights == {1.0}


@pytest.mark.parametrize("privacy", ["central_dp", "randomized_response"])
def test_models_without_a_known_bound_are_refused(federate: "Federate", privacy: str) -> None:
    """Unit=client bounds a client's message for any number of users."""
    with pytest.raises(ConfigError, match=r"no known bound under model=IALS"):
        federate("model=ials", f"privacy={privacy}", "min_completion=0.0", "num_rounds=1")


# --- randomized response: debiased by the number of users ---------------------------------------


@EVERY_MODEL
def test_answers_are_debiased_by_the_number_of_users_and_not_of_items(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Answers at random are debiased, useful at a stated epsilon, or refused.

    Once the number of items that all users reported was taken for the number of users.
    """
    found: list[tuple[dict[str, NDArray[np.float64]], Noise]] = []
    kind = type(MODELS[model]())
    solve = kind.solve

    def spied(self: Any, sums: Any, parameters: Any, noise: Any) -> Any:
        found.append((sums, noise))
        return solve(self, sums, parameters, noise)

    monkeypatch.setattr(kind, "solve", spied)
    data = ("dataset.num_users=400", "dataset.num_items=30", "dataset.num_interactions=4000")
    asked = (*ANSWERS, "privacy.epsilon=150.0", "privacy.max_items=30")  # everything is kept
    ran = federate(f"model={model}", *data, *asked, "evaluation.num_negatives=0")
    (sums, noise) = found[0]
    assert noise.num_users == 400
    exact = ran.setup.model
    assert isinstance(exact, ClosedFormRecommender)
    truth = exact.statistics(ran.setup.data.part(Part.TRAIN), {})
    (name,) = exact.statistic_names
    if model == "popularity":
        std = np.full(30, noise.of_items)
    else:
        count = symmetric(truth[name], 30).diagonal()
        std = noise.of_pairs(count)[np.tri(30, dtype=np.bool_)]
    score = (sums[name] - truth[name]) / std
    assert np.abs(score).max() < norm.isf(1e-6 / len(score))
    if model == "popularity":  # items are independent, pairs are not
        low, high = chi2.ppf([1e-4, 1 - 1e-4], len(score))
        assert low < (score**2).sum() < high


def test_estimates_of_pairs_vary_as_their_noise_says() -> None:
    """Answers at random are debiased, useful at a stated epsilon, or refused."""
    num_users, rate, is_random = 60, 0.3, 3000
    rng = np.random.default_rng(1)
    had = rng.random((num_users, 4)) < [0.9, 0.5, 0.1, 0.0]
    lower, drawn = np.tri(4, dtype=np.bool_), []
    for _ in range(is_random):
        told = (had ^ (rng.random(had.shape) < rate)).astype(np.float64)
        drawn.append(debiased((told.T @ told)[lower], 4, rate, num_users))
    values = np.array(drawn)
    std = Noise.of_answers(rate, num_users).of_pairs(had.sum(axis=0).astype(np.float64))[lower]
    assert values.std(axis=0) == pytest.approx(std, rel=5 / (2 * is_random) ** 0.5)
    error = std / is_random**0.5
    truth = (had.astype(np.float64).T @ had)[lower]
    assert (np.abs(values.mean(axis=0) - truth) < 4.5 * error).all()


def test_long_reports_of_short_histories_have_a_valid_weight(federate: "Federate") -> None:
    """A report has more items than any user had: the weight was refused as impossible."""
    data = ("dataset.num_items=600", "dataset.num_interactions=400")
    asked = (*ANSWERS, "privacy.epsilon=8.0", "privacy.max_items=10", "federation.num_nodes=24")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "fedrec_flower.models.closed_form.ClosedFormRecommender.largest_std", lambda *_: 0.0
        )
        ran = federate("model=popularity", *data, *asked)
    assert ran.watcher.replied == {1: 24}
    assert not ran.outcome.failures
    weights = {m.content.metric_records["metrics"]["num_examples"] for m in training(ran)}
    assert weights == {1.0}


@EVERY_MODEL
def test_pieces_of_a_large_cohort_add_up_to_the_whole(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    pairs = "privacy.max_items=4"  # of a single item no pair is reported
    asked = (f"model={model}", *ANSWERS, "privacy.epsilon=400.0", pairs, *SILOS)
    whole = federate(*asked)
    monkeypatch.setattr("fedrec_flower.federation.client.trainers._CELLS_PER_BATCH", 2 * 60)
    for name, value in federate(*asked).shared.items():
        assert_array_equal(value, whole.shared[name])


@EVERY_MODEL
def test_a_centralized_solution_debiases_too(federate: "Federate", model: str) -> None:
    """Answers at random are debiased, useful at a stated epsilon, or refused."""
    pairs = "privacy.max_items=4"  # of a single item no pair is reported
    asked = (f"model={model}", *ANSWERS, "privacy.epsilon=400.0", pairs, "partition=single")
    one, many = federate(*asked, "strategy=centralized"), federate(*asked)
    for name, value in many.shared.items():
        assert_array_equal(one.shared[name], value)
    exact = MODELS[model]()
    round_ = RoundInfo(round=1, num_replied=24, noise_std=4.0)
    triangle = np.arange(1.0, 1 + NUM_ITEMS * (NUM_ITEMS + 1) // 2)
    sums = {exact.statistic_names[0]: triangle[:NUM_ITEMS] if model == "popularity" else triangle}
    released = UpdateSum(sums, 3.0, np.zeros(0))
    expected = exact.solve(sums, {}, Noise(round_.noise_std))
    for name, value in solved(exact, released, {}, round_).items():
        assert_array_equal(value, expected[name])


def test_flips_that_hide_all_information_are_rejected_with_numbers(federate: "Federate") -> None:
    """Answers at random are debiased, useful at a stated epsilon, or refused."""
    reason = r"flips 40\.\d% of the answers.*all 24 users.*standard deviation of \d+ users"
    for model in MODELS:
        with pytest.raises(ConfigError, match=reason):
            federate(f"model={model}", *ANSWERS, "privacy.epsilon=8.0", "privacy.max_items=10")


def test_ease_is_rejected_if_noise_hides_all_information(federate: "Federate") -> None:
    """Its weights were all zero, and the run completed with a hit rate of 0."""
    noise = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1000.0", "min_completion=0.0")
    with pytest.raises(TrainingError, match=r"nothing in the released sums of EASE exceeds"):
        federate("model=ease", "privacy=central_dp", *noise, "num_rounds=1")


@pytest.mark.slow
def test_ease_of_randomized_response_is_useful(federate: "Federate") -> None:
    """Answers at random are debiased, useful at a stated epsilon, or refused."""
    data = ("dataset.num_users=2000", "dataset.num_items=60", "dataset.num_interactions=34000")
    asked = ("model=ease", *data, "evaluation.num_negatives=0", "evaluation.metrics=[ndcg@10]")
    answers = (*ANSWERS, "privacy.epsilon=50.0", "privacy.max_items=20")
    plain, private = federate(*asked, "num_rounds=1"), federate(*asked, *answers)
    best, found = (ran.watcher.metrics[1][Part.TEST]["ndcg@10"] for ran in (plain, private))
    assert best > 0.4
    assert found > 0.85 * best


# --- a report is given once ---------------------------------------------------------------------

HAD = [[0, 2, 3], [1], [], [4, 5, 6, 0]]


def test_a_report_is_the_same_in_every_request() -> None:
    """Each answer with fresh flips would cost epsilon again: 6 after 3 attempts of 2."""
    privacy = RandomizedResponse(2.0, 2)
    node, other = (NoiseSource(Secret(bytes([byte]) * 32)) for byte in (1, 2))
    first = report(privacy, node)
    assert all(same(first, report(privacy, node)) for _ in range(5))
    assert any(not same(report(privacy, node, [own]), report(privacy, other, [own])) for own in HAD)


def test_a_retried_round_has_the_same_reports(federate: "Federate") -> None:
    """A user answers once, however often it is asked."""

    def fail_once(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        if asked[0].metadata.message_type != "train":
            return replies
        attempts.append([sent(reply) for reply in replies])
        return [] if len(attempts) < 3 else replies

    attempts: list[list[NDArray[np.float64]]] = []
    asked = (*ANSWERS, "privacy.epsilon=40.0", "randomness=private", "min_completion=0.5")
    federate("model=popularity", *asked, "federation.num_nodes=3", meddle=fail_once)
    assert len(attempts) == 3
    for one, other in pairwise(attempts):
        for first, second in zip(one, other, strict=True):
            assert_array_equal(first, second)


def report(
    privacy: RandomizedResponse, noise_source: NoiseSource, items: list[list[int]] = HAD
) -> Columns:
    return privacy.training_data(client(items), NUM_ITEMS, noise_source).train


def same(one: Columns, other: Columns) -> bool:
    pairs = ((one.offsets, other.offsets), (one.item, other.item))
    return all(first.tolist() == second.tolist() for first, second in pairs)


def test_other_settings_and_other_histories_share_no_flips() -> None:
    """A user answers once, however often it is asked.

    With shared draws, the difference of two reports would reveal the flipped answers.
    """
    wide, noise_source = 400, NoiseSource(1)

    def flips(privacy: RandomizedResponse, own: list[int]) -> NDArray[np.bool_]:
        told = privacy.training_data(client([own]), wide, noise_source).train.item
        found: NDArray[np.bool_] = np.isin(np.arange(wide), told) ^ np.isin(np.arange(wide), own)
        return found

    plain = RandomizedResponse(2.0, 2)
    drawn = [flips(p, own) for p, own in (
        (plain, [3, 5]),
        (RandomizedResponse(2.001, 2), [3, 5]),
        (RandomizedResponse(3.0, 3), [3, 5]),
        (plain, [3, 6]),
    )]  # fmt: skip
    for one, other in pairwise(drawn):
        # Independent flips of rate p agree on p^2 + (1 - p)^2 of the items, here about 0.53.
        assert 0.4 < (one == other).mean() < 0.68
    assert_array_equal(flips(plain, [3, 5]), drawn[0])


def test_report_probabilities_of_two_histories_differ_at_most_by_epsilon() -> None:
    """A user answers once, however often it is asked.

    Clopper-Pearson bounds of 2,500 reports: a lower bound of the leak, below the claim.
    """
    privacy, trials, epsilon = RandomizedResponse(1.5, 1), 2500, 1.5
    counts = np.zeros((2, 8), np.int64)
    for which, own in enumerate(([0], [1, 2])):
        for seed in range(trials):
            told = privacy.training_data(client([own]), 3, NoiseSource(seed)).train.item
            counts[which, int((1 << told.astype(np.int64)).sum())] += 1
    leaks = []
    for seen, compared in ((counts[0], counts[1]), (counts[1], counts[0])):
        for first, second in zip(seen.tolist(), compared.tolist(), strict=True):
            least = beta.ppf(1e-4, first, trials - first + 1)
            most = beta.isf(1e-4, second + 1, trials - second)
            leaks.append(np.log(least / most))
    assert max(leaks) <= epsilon
    assert max(leaks) > epsilon / 2  # the test would see twice the claim
    assert privacy.flip_rate == 1 / (1 + exp(epsilon / 2))


# --- catalogues whose square does not fit -------------------------------------------------------


@pytest.mark.parametrize("kind", ["ease", "itemknn"])
def test_a_catalogue_whose_square_does_not_fit_is_refused_with_its_bytes(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    num_items = 3_000_000
    for model in (lambda: EASE(1, num_items, 1.0), lambda: ItemKNN(1, num_items, 5, 0.0)):
        with pytest.raises(ConfigError, match=r"3,000,000 items needs about \d+,\d+\.\d GB.*avail"):
            model()
    # A server needs more than a client: 60 items, 3,600 pairs.
    monkeypatch.setattr("fedrec_flower.core.memory.available", lambda: 30 * 3600)
    with pytest.raises(ConfigError, match=r"the server of \w+ with 60 items needs about 0\.0 GB"):
        federate(f"model={kind}")


def test_neighbours_without_similarity_rank_all_items_equally() -> None:
    """A regression: a model without similarities was accepted as trained."""
    model = ItemKNN(num_users=1, num_items=5, num_neighbours=2, shrinkage=1.0)
    hidden = {"neighbours": np.ones((5, 2), np.float32)}
    hidden |= {"similarities": np.zeros((5, 2), np.float32)}
    assert not model.separates_items(hidden)
    assert model.separates_items({**hidden, "similarities": np.eye(5, 2, dtype=np.float32)})
