"""With `weighting=uniform`, strategies equal their papers' algorithms, here in plain NumPy.

The problem is convex and small: a rating is a global bias plus an item's plus a user's, the last of
which stays with its client, one user each. Clients take full-batch steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from fedrec_flower.federation.server.sampling import sample_clients
from fedrec_flower.strategies.fedbuff import AsyncSchedule
from fedrec_flower.threats.latency import latency

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

Array = NDArray[np.float64]
RATE, STEPS, ROUNDS = 0.2, 3, 4
BIASES = (
    "task=rating",
    "model.init_std=0.0",  # zero vectors stay zero, so only biases are trained
    "training.weight_decay=0.0",
    f"training.learning_rate={RATE}",
    f"training.dense_learning_rate={RATE}",
    "training.batch_size=null",
    f"training.local_epochs={STEPS}",
    f"num_rounds={ROUNDS}",
    f"evaluation.every={ROUNDS}",
    "clients_per_round=10",
    "strategy.aggregation=all_clients",
    "dataset.activity_sigma=1.0",
)
SGD = ("strategy.server_optimizer=fedavg", "strategy.server_learning_rate=1.0")


@dataclass
class Client:
    """One user's ratings and state: its personal bias, and a vector of the algorithm."""

    item: NDArray[np.int32]
    rating: Array
    touched: NDArray[np.bool_]
    bias: float = 0.0
    kept: Array = field(default_factory=lambda: np.zeros(0))

    def train(self, given: Array, correction: Callable[[Array], Array]) -> tuple[Array, float]:
        """Take full-batch gradient steps on the mean squared error, with a gradient correction.

        Args:
            given: float64 (num_items + 1,), item biases and the global bias.
            correction: what is added to the gradient by the shared biases, from these.

        Returns:
            The shared biases after training, and the mean loss over the steps.
        """
        shared, losses = given.copy(), []
        for _ in range(STEPS):
            error = shared[self.item] + shared[-1] + self.bias - self.rating
            losses.append(np.mean(error**2))
            slope = 2 * error / len(error)
            gradient = np.bincount(self.item, slope, len(shared))
            gradient[-1] = slope.sum()
            # Rows without an interaction have no gradient and no correction.
            step = (gradient + correction(shared)) * self.touched
            shared, self.bias = shared - RATE * step, self.bias - RATE * slope.sum()
        return shared, float(np.mean(losses))


def always(correction: Array, shared: Array) -> Array:
    """Return the same correction at all parameters."""
    del shared
    return correction


def bent(given: Array, kept: Array, alpha: float, shared: Array) -> Array:
    """Return FedDyn's: the proximal term minus the gradient at the end of the last round."""
    return alpha * (shared - given) - kept


def clients(ran: "Federated") -> list[Client]:
    data, size = ran.setup.data, ran.setup.data.num_items + 1
    made = []
    for code in range(data.num_clients):
        train = data.client(code).train
        touched = np.zeros(size, bool)
        touched[train.item], touched[-1] = True, True
        assert train.rating is not None
        rating = np.asarray(train.rating, np.float64)
        made.append(Client(train.item, rating, touched, kept=np.zeros(size)))
    return made


def biases(tensors: dict[str, NDArray[np.float32]]) -> Array:
    shared = [tensors["item_bias.weight"][:, 0], tensors["global_bias"]]
    return np.concatenate(shared).astype(np.float64)


def start(ran: "Federated") -> Array:
    return biases(ran.setup.initial(ran.strategy))


def cohort(ran: "Federated", round_: int) -> list[int]:
    asked: list[int] = sample_clients(ran.setup.plan, "cohort", round_, 10).tolist()
    return asked


def scaffold(ran: "Federated") -> Array:
    """Karimireddy et al. 2020, Algorithm 1, option II; clients correct the rows they touch."""
    everyone, server, control = clients(ran), start(ran), np.zeros(len(start(ran)))
    for round_ in range(1, ROUNDS + 1):
        asked, moves, changes = cohort(ran, round_), [], []
        for client in (everyone[code] for code in asked):
            local, _ = client.train(server, partial(always, control - client.kept))
            new = (client.kept - control + (server - local) / (STEPS * RATE)) * client.touched
            moves.append(local - server)
            changes.append(new - client.kept)
            client.kept = new
        server = server + np.mean(moves, axis=0)
        control = control + len(asked) / len(everyone) * np.mean(changes, axis=0)
    return server


def feddyn(ran: "Federated") -> Array:
    """Acar et al. 2021, Algorithm 1; alpha is that of the configuration over the learning rate."""
    everyone, server, alpha = clients(ran), start(ran), 0.1 / RATE
    gathered = np.zeros(len(server))
    for round_ in range(1, ROUNDS + 1):
        asked, locals_ = cohort(ran, round_), []
        for client in (everyone[code] for code in asked):
            given, kept = server, client.kept
            local, _ = client.train(given, partial(bent, given, kept, alpha))
            client.kept = kept - alpha * (local - given)
            locals_.append(local)
        gathered -= alpha * np.sum([local - server for local in locals_], axis=0) / len(everyone)
        reached = np.any([everyone[code].touched for code in asked], axis=0)
        # A row without an interaction in the cohort does not move.
        server = np.mean(locals_, axis=0) - gathered / alpha * reached
    return server


def qfedavg(ran: "Federated") -> Array:
    """Li et al. 2020, Algorithm 2, with the loss of the local pass for F and q = 1."""
    everyone, server, lipschitz = clients(ran), start(ran), 1 / RATE
    for round_ in range(1, ROUNDS + 1):
        deltas, divisors = [], []
        for client in (everyone[code] for code in cohort(ran, round_)):
            local, loss = client.train(server, np.zeros_like)
            way = lipschitz * (server - local)
            deltas.append(loss * way)
            divisors.append(np.sum(way**2) + lipschitz * loss)
        server = server - np.sum(deltas, axis=0) / np.sum(divisors)
    return server


def fedbuff(ran: "Federated") -> Array:
    """Nguyen et al. 2022, Algorithm 1, a buffer of 4, staleness exponent 1/2."""
    everyone, server, plan = clients(ran), [start(ran)], ran.setup.plan

    def duration(codes: NDArray[np.int64], round_: int, count: int) -> Array:
        return 0.01 * latency(plan.seed, codes, plan.num_examples[codes], round_, count, 0.5)

    schedule = AsyncSchedule(plan.seed, plan.num_clients, 10, duration)
    for round_ in range(1, ROUNDS + 1):
        moves = []
        for code, version in zip(*schedule.collect(4, round_), strict=True):
            local, _ = everyone[code].train(server[version], np.zeros_like)
            moves.append((local - server[version]) / np.sqrt(round_ - version))
        server.append(server[-1] + np.mean(moves, axis=0))
    return server[-1]


FORMS: dict[str, tuple[Callable[["Federated"], Array], tuple[str, ...]]] = {
    "scaffold": (scaffold, SGD),
    "feddyn": (feddyn, ("strategy.alpha=0.1",)),
    "qfedavg": (qfedavg, (*SGD, "strategy.q=1.0", "strategy.loss_cap=.inf")),
    "fedbuff": (fedbuff, (*SGD, "strategy.buffer_size=4")),
}


@pytest.mark.parametrize("name", FORMS)
def test_strategy_with_uniform_weights_equals_its_papers_algorithm(
    federate: "Federate", name: str
) -> None:
    plain, words = FORMS[name]
    uniform = federate(f"strategy={name}", *words, *BIASES, "strategy.weighting=uniform")
    expected = plain(uniform)
    assert_allclose(biases(uniform.shared), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - start(uniform)).max() > 0.1
    by_examples = federate(f"strategy={name}", *words, *BIASES)
    assert np.abs(biases(by_examples.shared) - expected).max() > 0.01
