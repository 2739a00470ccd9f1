"""Lower bounds of epsilon by trials: below every claim, and above a violated claim."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import numpy as np
import pytest
from flwr.app import Message

from fedrec_flower.core.types import Arrays
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.audit import LowerBound, epsilon_lower_bound, most_provable
from fedrec_flower.privacy.gaussian import CentralDPServer
from fedrec_flower.privacy.local import LocalDP
from tests.helpers.audits import (
    GRADIENTS,
    Deployed,
    Floats,
    Holdings,
    Released,
    by_answers,
    by_bias,
    deployed,
    killed_once,
    scores,
)

ALMOST_SURE = 0.999  # confidence of a bound: one run in a thousand fails without a reason
FEW = 400  # trials of whole replies: a value without noise gives a bound of 3.2
MANY = 20_000  # trials of which only the noise is drawn
USERS: Holdings = [[[0]], [[1]]]
PAIRS: Holdings = [[[0], [0]], [[1], [1]]]
ALONE: Holdings = [[[0]], [[]]]
TOGETHER: Holdings = [[[0], [0]], [[], []]]
HALF_A_CATALOGUE: Holdings = [[[0, 1]], [[2, 3]]]

LOCAL = (*GRADIENTS, "privacy=local_dp")
CENTRAL = (*GRADIENTS, "privacy=central_dp", "training.learning_rate=1.0")


# --- the statistics -----------------------------------------------------------------------------


def test_lower_bound_of_separable_scores_depends_only_on_the_number_of_trials() -> None:
    one, other = np.zeros((1000, 2)), np.zeros((1000, 2))
    other[:, 1] = np.nan
    found = epsilon_lower_bound(one, other, 0.0)
    rate = 1 - 0.025 ** (1 / 500)  # Clopper and Pearson, none of 500
    assert (found.score, found.num_trials) == (1, 1000)
    assert [found.false_positives, found.false_negatives] == pytest.approx([rate, rate])
    assert found.epsilon == pytest.approx(most_provable(1000)) == pytest.approx(log(1 / rate - 1))


def test_lower_bound_of_equal_distributions_is_zero() -> None:
    rng = np.random.default_rng(1)
    assert epsilon_lower_bound(np.ones((99, 1)), np.ones((99, 1)), 0.0).epsilon == 0.0
    one, other = rng.normal(size=(2, 4000, 3))
    assert epsilon_lower_bound(one, other, 0.0).epsilon < 0.2


def test_lower_bound_is_below_the_true_epsilon_and_close_to_it() -> None:
    rng, truth = np.random.default_rng(2), 1.5  # of one fair answer, flipped
    told = rng.random((2, 20_000, 1)) < 1 / (1 + np.exp(truth))
    found = epsilon_lower_bound(told[0].astype(float), (~told[1]).astype(float), 0.0)
    assert truth - 0.15 < found.epsilon < truth


def test_lower_bound_rejects_trials_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="at least 4 trials"):
        epsilon_lower_bound(np.zeros((9, 1)), np.zeros((9, 2)), 0.0)


# --- nodes and servers --------------------------------------------------------------------------


def bound_by_replies(ran: Deployed, count: int, aimed: Any = by_bias) -> LowerBound:
    """The lower bound of epsilon by whole replies of the first and of the second client."""
    one, other = (scores(ran.trials(client, count), aimed) for client in (0, 1))
    return epsilon_lower_bound(one, other, ran.facts["delta"], ALMOST_SURE)


def bound_by_noise(ran: Deployed, count: int) -> LowerBound:
    """The lower bound of epsilon by the noisy updates of the first and of the second client."""
    one, other = (gained(ran.noisy_updates(client, count)) for client in (0, 1))
    return epsilon_lower_bound(one, other, ran.facts["delta"], ALMOST_SURE)


def gained(updates: list[Arrays]) -> Floats:
    """The gain of the first item's bias over the second's, summed over messages; and its change."""
    biases = [update["item_bias.weight"].astype(np.float64) for update in updates]
    gains = [bias[:, 0, 0] - bias[:, 1, 0] for bias in biases]
    return np.stack([np.sum(gains, axis=0), gains[-1] - gains[0]], axis=1)


def bound_by_reports(ran: Deployed, count: int, num_items: int) -> LowerBound:
    """The lower bound of epsilon by the reports of the first and of the second client."""
    one, other = (
        np.array([[np.sum(np.where(items < num_items // 2, 1.0, -1.0))] for items in reports])
        for reports in (ran.reported_items(client, count) for client in (0, 1))
    )
    return epsilon_lower_bound(one, other, ran.facts["delta"], ALMOST_SURE)


def released(ran: Deployed, count: int) -> LowerBound:
    """The lower bound of epsilon by releases with and without the first client's data."""
    server = Released.by(ran)
    one, other = (server.trials(count, present=present) for present in (True, False))
    return epsilon_lower_bound(one, other, ran.facts["delta"], ALMOST_SURE)


@contextmanager
def losses_sent() -> Iterator[None]:
    """Send a loss without noise with each noisy update."""
    with patch.object(LocalDP, "has_guarantee", PropertyMock(return_value=False)):
        yield


def test_an_exact_loss_with_a_noisy_update_violates_the_claim(tmp_path: Path) -> None:
    """No value that depends on data leaves a node without noise."""
    ran = deployed(tmp_path, USERS, 2, [*LOCAL, "privacy.target_epsilon=0.5", "num_rounds=1"])
    claimed = ran.facts["epsilon"]
    assert bound_by_replies(ran, 150).epsilon < claimed < 0.51
    with losses_sent():
        assert bound_by_replies(ran, 150).epsilon > claimed


def honest(asked: list[Message], replies: list[Message]) -> list[Message]:
    """Let everything pass."""
    del asked
    return replies


def retried(asked: list[Message], replies: list[Message]) -> list[Message]:
    """Let the first attempt at each round fail, though the attacker has its messages."""
    config = asked[0].content.config_records["config"]
    return replies[:1] if config.get("attempt", 1) == 0 else replies


# Without a target, which would end the run when it is spent.
RESUMES = ("privacy.target_epsilon=null", "privacy.noise_multiplier=8.0", "checkpoint_every=1")
LOCAL_CASES = {
    "gaussian": (USERS, ("privacy.target_epsilon=2.0", "num_rounds=1")),
    "gaussian, three rounds": (USERS, ("privacy.target_epsilon=2.0", "num_rounds=3")),
    "gaussian, unit client": (
        PAIRS,
        ("privacy.target_epsilon=2.0", "privacy.unit=client", "num_rounds=1"),
    ),
    "gaussian, per tensor": (
        USERS,
        ("privacy.target_epsilon=2.0", "privacy.clipping=per_tensor", "num_rounds=1"),
    ),
    "laplace": (USERS, ("privacy.target_epsilon=2.0", "privacy.mechanism=laplace", "num_rounds=1")),
    "gaussian, a round tried twice": (
        USERS,
        # Without a budget: one of a single message leaves no client to be asked again.
        (
            *("privacy.target_epsilon=null", "privacy.noise_multiplier=3.0"),
            *("min_completion=0.9", "num_rounds=1"),
        ),
    ),
    "gaussian, killed and gone on with": (USERS, (*RESUMES, "num_rounds=2")),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LOCAL_CASES)
def test_lower_bound_of_node_messages_is_below_the_claim(case: str, tmp_path: Path) -> None:
    """No value that depends on data leaves a node without noise."""
    clients, words = LOCAL_CASES[case]
    meddle = {"twice": retried, "killed": killed_once()}
    happens = next((meddle[word] for word in meddle if word in case), honest)
    ran = deployed(tmp_path, clients, 2, [*LOCAL, *words], happens)
    assert bound_by_replies(ran, FEW).epsilon < ran.facts["epsilon"]
    found = bound_by_noise(ran, MANY)
    report(case, ran.facts["epsilon"], found)
    assert 0 < found.epsilon < ran.facts["epsilon"]


def test_a_killed_and_resumed_run_counts_every_message(tmp_path: Path) -> None:
    words = [*LOCAL, *RESUMES, "num_rounds=2"]
    ran = deployed(tmp_path, USERS, 2, words, killed_once())
    assert len(ran.asked(0)) == 3  # the second round twice, its noise fresh
    assert ran.facts["privacy"]["most_messages_of_a_client"] == 3


@pytest.mark.slow
def test_a_third_of_the_noise_violates_a_local_claim(tmp_path: Path) -> None:
    ran = deployed(tmp_path, USERS, 2, [*LOCAL, "privacy.target_epsilon=2.0", "num_rounds=1"])
    third = PropertyMock(return_value=ran.setup.privacy_setup.privacy.noise_scale / 3)  # type: ignore[attr-defined]  # LocalDP
    with patch.object(LocalDP, "noise_scale", third):
        found = bound_by_noise(ran, MANY)
        few = bound_by_replies(ran, 2_000)
    assert few.epsilon > ran.facts["epsilon"]
    report("broken: a third of the noise, local", ran.facts["epsilon"], found)
    assert found.epsilon > ran.facts["epsilon"]


@pytest.mark.slow
def test_lower_bound_of_randomized_responses_is_below_the_claim(tmp_path: Path) -> None:
    words = ("model=popularity", "privacy=randomized_response", "privacy.epsilon=2.0")
    more = ("privacy.max_items=2", "num_rounds=1")
    with patch.object(
        ClosedFormRecommender, "largest_std", return_value=0.0
    ):  # else refused as useless
        ran = deployed(tmp_path, HALF_A_CATALOGUE, 4, [*words, *more])
    assert bound_by_replies(ran, FEW, by_answers).epsilon < ran.facts["epsilon"]
    found = bound_by_reports(ran, 10_000, 4)
    report("randomized response", ran.facts["epsilon"], found)
    assert 1.0 < found.epsilon < ran.facts["epsilon"]


POISSON = ("privacy.sampling=poisson", "clients_per_round=1")
FIXED = ("privacy.sampling=fixed", "clients_per_round=2")
SUMS = ("model=popularity", "privacy=central_dp", "privacy.delta=0.001", "num_rounds=1", *FIXED)
EPSILON = "privacy.target_epsilon=2.0"
ADAPTS = ("privacy.adaptive_clipping=true", "privacy.count_noise=2.0")
CENTRAL_CASES = {
    "poisson, three rounds": (ALONE, (*CENTRAL, *POISSON, EPSILON, "num_rounds=3")),
    "fixed cohort": (ALONE, (*CENTRAL, *FIXED, EPSILON, "num_rounds=1")),
    "fixed cohort, three rounds": (ALONE, (*CENTRAL, *FIXED, EPSILON, "num_rounds=3")),
    "unit client": (TOGETHER, (*CENTRAL, *FIXED, EPSILON, "num_rounds=1", "privacy.unit=client")),
    "adaptive clipping": (ALONE, (*CENTRAL, *FIXED, EPSILON, *ADAPTS, "num_rounds=1")),
    "statistics": (ALONE, (*SUMS, EPSILON)),
}


ONE_BY_ONE = ("poisson, three rounds", "adaptive clipping")  # trials differ in more than noise


@pytest.mark.slow
@pytest.mark.parametrize("case", CENTRAL_CASES)
def test_lower_bound_of_releases_is_below_the_claim(case: str, tmp_path: Path) -> None:
    clients, words = CENTRAL_CASES[case]
    ran = deployed(tmp_path, clients, 2, _sampled(words))
    found = released(ran, 4_000 if case in ONE_BY_ONE else MANY)
    report(f"central, {case}", ran.facts["epsilon"], found)
    assert 0 < found.epsilon < ran.facts["epsilon"]


@pytest.mark.slow
def test_half_the_noise_violates_a_central_claim(tmp_path: Path) -> None:
    clients, words = CENTRAL_CASES["fixed cohort"]
    ran = deployed(tmp_path, clients, 2, _sampled(words))
    std = ran.setup.privacy_setup.server_mechanism().noise_std
    with patch.object(CentralDPServer, "noise_std", PropertyMock(return_value=std / 2)):
        found = released(ran, MANY)
    report("broken: half the noise, central", ran.facts["epsilon"], found)
    assert found.epsilon > ran.facts["epsilon"]


def _sampled(words: Iterable[str]) -> list[str]:
    return [*words, "min_completion=0.0"]


def report(case: str, claimed: float, found: LowerBound) -> None:
    """A row of the table in the documentation; pytest -s shows it."""
    print(f"| {case} | {claimed:.3f} | {found.epsilon:.3f} | {found.score} |")  # noqa: T201
