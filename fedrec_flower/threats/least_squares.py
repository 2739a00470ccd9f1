"""Least squares: infers histories from a sum, for a server that has the seed of the clients' draws.

A bilinear model changes item i by row_i = sum over clients u of a_ui * (p_u, 1): the client's
vector, and 1 for the bias. The seed gives every p_u of the first round, and the negatives that a
client with a given number of items draws. Each row is therefore a linear system with d + 1
equations and one unknown a_ui per client. It is solved by linear minimum mean square error,

    a_i = m_i + V P (P' V P + s I)^-1 (row_i - P' m_i),

where m_i and V are the prior mean and variances of a_ui, and P has the rows (p_u, 1). Then the
clients are simulated on the estimated histories with their own code. The simulation gives m_i, the
direction in which each client changed items on average, and the change of one own item. The system
is solved again for the residual of the simulation. The simulated vectors are carried from round to
round, so that the attack works at any round if it has the sums of all earlier rounds.

Source: Kay 1993, "Fundamentals of statistical signal processing: estimation theory", theorem 12.1,
for the estimator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray
from fedrec_flower.core.updates import Updates
from fedrec_flower.models.abilities import BilinearForm
from fedrec_flower.threats.observation import ClientSimulator, ObservedSum

_NUM_ACTIVITIES = 36  # candidate numbers of items, geometrically spaced
_MAX_ERROR = 1.5  # largest counted error of one coefficient, in changes of one own item
_FIRST_RESIDUAL = 0.05  # share of the variance of a sum that the first estimate does not explain
_NEXT_RESIDUAL = 0.1  # share of the residual variance that the next estimate does not explain
_MIN_PROBABILITY = 1e-3  # of having an item
_MAX_PROBABILITY = 0.9  # of having an item
_ITEMS_PER_CHUNK = 64  # items whose systems are solved together


@dataclass(frozen=True, slots=True)
class SimulatedUpdates:
    """The updates of simulated clients with guessed histories.

    Attributes:
        change: float64 (n, num_items), weighted changes of the item biases.
        directions: float64 (n, d), change of the item vectors for a bias change of 1.
        total: float64 (num_items, d + 1), the sum of the updates.
    """

    change: Float64Array
    directions: Float64Array
    total: Float64Array

    @classmethod
    def of(
        cls, updates: Updates, cohort: IndexArray, factors: BilinearForm, num_items: int
    ) -> "SimulatedUpdates":
        """Arrange updates by client."""
        weights = updates.row_weights
        vectors = updates.tensors[factors.item] * weights[:, None]
        biases = updates.tensors[factors.item_bias][:, 0] * weights
        directions = np.zeros((len(cohort), vectors.shape[1]))
        places = np.searchsorted(cohort, updates.clients)
        for n, place in enumerate(places.tolist()):
            rows = slice(int(updates.offsets[n]), int(updates.offsets[n + 1]))
            length = float(biases[rows] @ biases[rows])
            directions[place] = biases[rows] @ vectors[rows] / max(length, 1e-30)
        whole = np.concatenate([vectors, biases[:, None]], axis=1)
        total = np.zeros((num_items, whole.shape[1]))
        scatter_add_rows(total, updates.rows, whole)
        return cls(changes(updates, cohort, factors, num_items), directions, total)


def changes(
    updates: Updates, cohort: IndexArray, factors: BilinearForm, num_items: int
) -> Float64Array:
    """float64 (n, num_items): each client's changes of item biases, times its weight."""
    change = np.zeros((len(cohort), num_items))
    owners = np.searchsorted(cohort, updates.clients)[updates.owners]
    biases = updates.tensors[factors.item_bias][:, 0] * updates.row_weights
    change[owners, updates.rows] = biases
    return change


@dataclass(slots=True)
class LeastSquares:
    """The attack; sums must be read in the order of their rounds, from the first round.

    Attributes:
        imitation: simulates the clients.
        factors: names of the parameters in a score.
        num_items: size of the catalogue.
        refinements: number of simulations for each sum.
        activities: int64 (num_clients,), number of items of each client; None if unknown.
        histories: estimated item codes by client.
    """

    simulator: ClientSimulator
    factors: BilinearForm
    num_items: int
    refinements: int
    activities: IndexArray | None
    histories: dict[int, IndexArray] = field(default_factory=dict)

    def read(self, played: ObservedSum) -> Float64Array:
        """Score the items of a cohort from its sum and the sums read before.

        Args:
            played: the sum of a cohort of one client or more.

        Returns:
            float64 (n, num_items): about 1 for items that the client has, about 0 for others.
        """
        names = (self.factors.item, self.factors.item_bias)
        rows = np.concatenate([played.seen[name] for name in names], axis=1)
        vectors = self.simulator.vectors(played.cohort)
        # The equation of the bias has the same weight as the mean equation of the vector.
        scale = np.append(np.ones(vectors.shape[1]), np.sqrt(np.mean(vectors**2)))
        slopes = _loss_slopes(played.given, self.factors, vectors)
        estimate = _Estimate(self, played, rows, scale, slopes)
        score = estimate.first(vectors)
        for _ in range(self.refinements):
            score = estimate.refined(score)
        histories = {
            client: _best(score[place], int(estimate.sizes[place]))
            for place, client in enumerate(played.cohort.tolist())
        }
        self.histories |= histories
        self.simulator.updates(played, histories, keep=True)
        return score

    def simulate(
        self, played: ObservedSum, histories: Mapping[int, IndexArray]
    ) -> SimulatedUpdates:
        """Simulate the clients of a cohort with guessed histories."""
        updates = self.simulator.updates(played, histories, keep=False)
        return SimulatedUpdates.of(updates, played.cohort, self.factors, self.num_items)


class _Estimate:
    """Iterative estimate of the histories of one cohort.

    Args:
        attack: the attack, with the histories estimated so far.
        played: the sum.
        rows: float64 (num_items, d + 1), the summed changes of item vectors and biases.
        scale: float64 (d + 1,), weights of the equations.
        slopes: float64 (n, num_items), slope of the loss at each item's score.

    Attributes:
        sizes: int64 (n,), number of items of each client.
    """

    def __init__(
        self,
        attack: LeastSquares,
        played: ObservedSum,
        rows: Float64Array,
        scale: Float64Array,
        slopes: Float64Array,
    ) -> None:
        self._attack = attack
        self._played = played
        self._rows = rows
        self._scale = scale
        self._slopes = slopes
        self._cohort = played.cohort.tolist()
        mean_size = _mean_activity(played, attack.num_items)
        known = attack.activities
        self.sizes = np.array(
            [
                int(known[client]) if known is not None else len(attack.histories.get(client, []))
                for client in self._cohort
            ]
        )
        self._unknown = np.flatnonzero(self.sizes == 0)  # clients whose size is estimated
        self.sizes[self._unknown] = mean_size
        largest = max(min(8 * mean_size, attack.num_items // 2), mean_size)
        candidates = np.geomspace(min(8, mean_size), largest, _NUM_ACTIVITIES)
        self._candidate_sizes = np.unique(candidates.astype(int))
        self._profiles: list[Float64Array] = []  # by candidate size: changes by negatives alone

    def first(self, vectors: Float64Array) -> Float64Array:
        """Scores from the clients' vectors, before their histories are simulated.

        Args:
            vectors: float64 (n, d), the clients' vectors before the round.

        Returns:
            float64 (n, num_items).
        """
        attack = self._attack
        rng = np.random.default_rng(0)
        histories = {
            client: attack.histories[client]
            if client in attack.histories
            else rng.choice(attack.num_items, int(size), replace=False)
            for client, size in zip(self._cohort, self.sizes, strict=True)
        }
        typical = attack.simulate(self._played, histories)
        is_new = np.array([client not in attack.histories for client in self._cohort])
        # For a new client only the mean and the variance of its changes are known.
        mean = np.where(is_new[:, None], typical.change.mean(axis=1)[:, None], typical.change)
        variances = typical.change.var(axis=1) * np.where(is_new, 1.0, _NEXT_RESIDUAL)
        directions = np.where(is_new[:, None], vectors, typical.directions)
        residual = self._rows - _mixed(mean, directions)
        noise = _FIRST_RESIDUAL * float(self._rows[:, :-1].var())
        by_item = np.tile(variances[:, None], mean.shape[1])
        change = self._solve(residual, directions, by_item, noise) + mean
        unit = self._unit(typical.change, histories)
        self._estimate_sizes(change, unit)
        score = (change - self._negatives(self.sizes)) / (unit * self._slopes)
        for place, client in enumerate(self._cohort):
            if client in attack.histories:
                score[place, attack.histories[client]] += 1.0
        return score

    def refined(self, score: Float64Array) -> Float64Array:
        """Scores from the residual of a simulation of the best histories.

        Args:
            score: float64 (n, num_items), the scores so far.

        Returns:
            float64 (n, num_items).
        """
        histories = {
            client: _best(score[place], int(self.sizes[place]))
            for place, client in enumerate(self._cohort)
        }
        simulated = self._attack.simulate(self._played, histories)
        has_item = np.zeros_like(simulated.change)
        for place, client in enumerate(self._cohort):
            has_item[place, histories[client]] = 1.0
        unit = self._unit(simulated.change, histories)
        item_change = unit * self._slopes  # bias change of an item that the client has
        by_negatives = (simulated.change - has_item * item_change).sum(axis=0)
        counts = (self._rows[:, -1] - by_negatives) / item_change.mean(axis=0)
        counts = np.maximum(counts, 0.2)
        probability = np.outer(self.sizes, counts / counts.sum())
        probability = np.clip(probability, _MIN_PROBABILITY, _MAX_PROBABILITY)
        variances = probability * (1 - probability) * item_change**2
        residual = self._rows - simulated.total
        noise = _NEXT_RESIDUAL * float(residual[:, :-1].var())
        missing = self._solve(residual, simulated.directions, variances, noise)
        self._estimate_sizes(simulated.change + missing, unit)
        return has_item + missing / item_change

    def _solve(
        self, rows: Float64Array, directions: Float64Array, variances: Float64Array, noise: float
    ) -> Float64Array:
        """The changes whose sum is closest to given rows, by minimum mean square error.

        Args:
            rows: float64 (num_items, d + 1), the summed changes.
            directions: float64 (n, d), change of item vectors for a bias change of 1.
            variances: float64 (n, num_items), prior variances of the changes.
            noise: variance of the unexplained part of each value.

        Returns:
            float64 (n, num_items), changes of item biases.
        """
        noise = max(noise, self._played.noise_std**2, 1e-12)
        equations = np.concatenate([directions, np.ones((len(directions), 1))], axis=1)
        equations = equations * self._scale
        right = rows * self._scale
        change = np.empty_like(variances)
        for start in range(0, len(rows), _ITEMS_PER_CHUNK):
            items = slice(start, start + _ITEMS_PER_CHUNK)
            spread = variances[:, items].T[:, :, None] * equations  # (items, n, d + 1)
            system = equations.T @ spread + noise * np.eye(equations.shape[1])
            weights = np.linalg.solve(system, right[items][:, :, None])
            change[:, items] = (spread @ weights)[:, :, 0].T
        return change

    def _unit(self, change: Float64Array, histories: Mapping[int, IndexArray]) -> Float64Array:
        """float64 (n, 1): each client's bias change of an own item whose score is 0."""
        units = []
        for place, client in enumerate(self._cohort):
            items = histories[client]
            ratios = change[place, items] / self._slopes[place, items]
            units.append(float(np.median(ratios[ratios > 0])) if (ratios > 0).any() else np.nan)
        by_client = np.array(units)
        median = np.nanmedian(by_client) if np.isfinite(by_client).any() else 1.0
        return np.where(np.isfinite(by_client), by_client, median)[:, None]

    def _negatives(self, sizes: IndexArray) -> Float64Array:
        """Changes of biases by negatives, for clients with the given numbers of items.

        Args:
            sizes: int64 (n,), number of items of each client.

        Returns:
            float64 (n, num_items).
        """
        one = np.zeros(1, np.int64)  # the histories repeat one item, whose change is removed
        histories = {c: np.repeat(one, int(m)) for c, m in zip(self._cohort, sizes, strict=True)}
        attack = self._attack
        updates = attack.simulator.updates(self._played, histories, keep=False)
        change = changes(updates, self._played.cohort, attack.factors, attack.num_items)
        change[:, one] = 0.0
        return change

    def _estimate_sizes(self, change: Float64Array, unit: Float64Array) -> None:
        """Set each unknown size to the candidate whose negatives fit the changes best."""
        if not len(self._unknown):
            return
        if not self._profiles:
            count = len(self._cohort)
            self._profiles = [
                self._negatives(np.full(count, size)).astype(np.float32)
                for size in self._candidate_sizes
            ]
        share = np.maximum(change.sum(axis=0) - np.mean(self._profiles, axis=0).sum(axis=0), 0.0)
        share = share / max(float(share.sum()), 1e-12)
        limit = _MAX_ERROR * unit
        errors = [
            _clipped_squares(change - profile - unit * self._slopes * size * share, limit)
            for size, profile in zip(self._candidate_sizes, self._profiles, strict=True)
        ]
        best = self._candidate_sizes[np.argmin(errors, axis=0)]
        self.sizes[self._unknown] = best[self._unknown]


def _clipped_squares(errors: Float64Array, limit: Float64Array) -> Float64Array:
    """float64 (n,): sums of squared errors, each error clipped to `limit` (n, 1)."""
    return np.asarray((np.minimum(np.abs(errors), limit) ** 2).sum(axis=1))


def _mixed(change: Float64Array, directions: Float64Array) -> Float64Array:
    """float64 (num_items, d + 1): the sum of the clients' changes along their directions."""
    return np.concatenate([change.T @ directions, change.sum(axis=0)[:, None]], axis=1)


def _loss_slopes(
    given: Mapping[str, Float32Array], factors: BilinearForm, vectors: Float64Array
) -> Float64Array:
    """float64 (n, num_items): the slope of the loss at each item's score; 1 at a score of 0."""
    scores = vectors @ given[factors.item].T.astype(np.float64) + given[factors.item_bias][:, 0]
    return np.maximum(2.0 / (1.0 + np.exp(np.minimum(scores, 30.0))), 0.05)


def _mean_activity(played: ObservedSum, num_items: int) -> int:
    """The mean number of items of a client; a default if all weights are 1."""
    mean = round(played.weight / max(len(played.cohort), 1))
    return int(np.clip(mean if mean > 1 else num_items // 20, 1, num_items // 2))


def _best(score: Float64Array, count: int) -> IndexArray:
    """int64 (count,): the items with the highest scores."""
    return np.argsort(-score, kind="stable")[:count].astype(np.int64)
