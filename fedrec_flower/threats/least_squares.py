"""Least squares: histories from a sum, by a server that knows the seed of the clients' draws.

A model of factors changes item i by row_i = sum over clients u of a_ui * (p_u, 1): the client's
vector, and 1 for the bias. The seed gives every p_u of the first round and the negatives that a
client of given activity draws. So each row is a linear system: as many equations as dimensions and
one more, as many unknowns a_ui as clients. It is solved by linear minimum mean square error,

    a_i = m_i + V P (P' V P + s I)^-1 (row_i - P' m_i),

with m_i and V the mean and the variances of a_ui before the sum is seen, and P of rows (p_u, 1).
Then the clients are imitated with the histories found so far, by their own code: that gives m_i,
the vector along which each client moved items on average, and how far one own item moves; and the
system is solved again for what the imitation leaves unexplained. Vectors are kept from round to
round, so that the attack goes on at any round of which it has seen those before.

Source: Kay 1993, "Fundamentals of statistical signal processing: estimation theory", theorem 12.1,
for the estimator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.updates import Updates
from fedrec_flower.models.abilities import BilinearForm
from fedrec_flower.threats.observation import Imitation, Sum

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_STEPS = 36  # activities that are tried, geometrically spaced
_OUTLIER = 1.5  # own items by which one coefficient may speak against an activity, at most
_NOISE = 0.05  # share of the variance of a sum that a first guess leaves unexplained
_LEFT = 0.1  # and of what an imitation leaves, that the next one will
_LEAST, _MOST = 1e-3, 0.9  # probabilities of having an item
_AT_ONCE = 64  # items whose systems are solved together


@dataclass(frozen=True, slots=True)
class Imitated:
    """What clients of supposed histories would have sent, by client.

    Attributes:
        change: float64 (n, num_items), weighted changes of the item biases.
        directions: float64 (n, d), along which each moved item vectors, for a bias change of 1.
        total: float64 (num_items, d + 1), the sum of it all.
    """

    change: Floats
    directions: Floats
    total: Floats

    @classmethod
    def of(
        cls, updates: Updates, cohort: Codes, factors: BilinearForm, num_items: int
    ) -> "Imitated":
        """Lay out updates by client."""
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


def changes(updates: Updates, cohort: Codes, factors: BilinearForm, num_items: int) -> Floats:
    """float64 (n, num_items): what clients change item biases by, times their weights."""
    found = np.zeros((len(cohort), num_items))
    owners = np.searchsorted(cohort, updates.clients)[updates.owners]
    biases = updates.tensors[factors.item_bias][:, 0] * updates.row_weights
    found[owners, updates.rows] = biases
    return found


@dataclass(slots=True)
class LeastSquares:
    """The attack; sums must come in the order of their rounds, from the first on.

    Attributes:
        imitation: the clients' code.
        factors: names of what makes up a score.
        num_items: size of the catalogue.
        refinements: how often the clients are imitated for a sum.
        activities: int64 (num_clients,), how many items each has; None if the server does not know.
        histories: item codes by client, as found so far.
    """

    imitation: Imitation
    factors: BilinearForm
    num_items: int
    refinements: int
    activities: Codes | None
    histories: dict[int, Codes] = field(default_factory=dict)

    def read(self, played: Sum) -> Floats:
        """What a sum, and those before it, tell of its cohort.

        Args:
            played: the sum; of a cohort of one client or more.

        Returns:
            float64 (n, num_items): about 1 for items that the client has, about 0 for others.
        """
        names = (self.factors.item, self.factors.item_bias)
        rows = np.concatenate([played.seen[name] for name in names], axis=1)
        vectors = self.imitation.vectors(played.cohort)
        # A bias is an equation as good as any one dimension of a vector, and no better.
        scale = np.append(np.ones(vectors.shape[1]), np.sqrt(np.mean(vectors**2)))
        guess = _Guess(self, played, rows, scale, _pulls(played.given, self.factors, vectors))
        score = guess.first(vectors)
        for _ in range(self.refinements):
            score = guess.refined(score)
        sizes = guess.sizes
        found = {
            client: _best(score[place], int(sizes[place]))
            for place, client in enumerate(played.cohort.tolist())
        }
        self.histories |= found
        self.imitation.updates(played, found, keep=True)
        return score

    def imitated(self, played: Sum, histories: Mapping[int, Codes]) -> Imitated:
        """The clients of a cohort with histories that are supposed."""
        updates = self.imitation.updates(played, histories, keep=False)
        return Imitated.of(updates, played.cohort, self.factors, self.num_items)


class _Guess:
    """The histories of one cohort, as they become clearer."""

    def __init__(
        self, attack: LeastSquares, played: Sum, rows: Floats, scale: Floats, pulls: Floats
    ) -> None:
        self._attack, self._played, self._pulls = attack, played, pulls
        self._rows, self._scale = rows, scale
        self._cohort = played.cohort.tolist()
        usual = _usual_activity(played, attack.num_items)
        known = attack.activities
        self.sizes = np.array(
            [
                int(known[client]) if known is not None else len(attack.histories.get(client, []))
                for client in self._cohort
            ]
        )
        self._open = np.flatnonzero(self.sizes == 0)  # those whose activity is to be found
        self.sizes[self._open] = usual
        top = min(8 * usual, attack.num_items // 2)
        self._steps = np.unique(np.geomspace(min(8, usual), max(top, usual), _STEPS).astype(int))
        self._profiles: list[Floats] = []

    def first(self, vectors: Floats) -> Floats:
        """Scores by the clients' vectors alone."""
        drawn, attack = np.random.default_rng(0), self._attack
        supposed = {
            client: attack.histories[client]
            if client in attack.histories
            else drawn.choice(attack.num_items, int(size), replace=False)
            for client, size in zip(self._cohort, self.sizes, strict=True)
        }
        typical = attack.imitated(self._played, supposed)
        new = np.array([client not in attack.histories for client in self._cohort])
        # Of a client that is new nothing is known but how far a client moves items on the whole.
        mean = np.where(new[:, None], typical.change.mean(axis=1)[:, None], typical.change)
        variances = typical.change.var(axis=1) * np.where(new, 1.0, _LEFT)
        along = np.where(new[:, None], vectors, typical.directions)
        unexplained = _NOISE * float(self._rows[:, :-1].var())
        change = self._solved(
            self._rows - _mixed(mean, along), along, np.tile(variances[:, None], mean.shape[1]),
            unexplained,
        ) + mean  # fmt: skip
        unit = self._unit(typical.change, supposed)
        self._find_sizes(change, unit)
        score = (change - self._negatives(self.sizes)) / (unit * self._pulls)
        for place, client in enumerate(self._cohort):
            if client in attack.histories:
                score[place, attack.histories[client]] += 1.0
        return score

    def refined(self, score: Floats) -> Floats:
        """Scores by what an imitation of the best histories so far leaves unexplained."""
        supposed = {
            client: _best(score[place], int(self.sizes[place]))
            for place, client in enumerate(self._cohort)
        }
        found = self._attack.imitated(self._played, supposed)
        own = np.zeros_like(found.change)
        for place, client in enumerate(self._cohort):
            own[place, supposed[client]] = 1.0
        unit = self._unit(found.change, supposed)
        moved = unit * self._pulls  # of an own item
        counts = (self._rows[:, -1] - (found.change - own * moved).sum(axis=0)) / moved.mean(axis=0)
        counts = np.maximum(counts, 0.2)
        likely = np.clip(np.outer(self.sizes, counts / counts.sum()), _LEAST, _MOST)
        left = self._rows - found.total
        noise = _LEFT * float(left[:, :-1].var())
        missing = self._solved(left, found.directions, likely * (1 - likely) * moved**2, noise)
        self._find_sizes(found.change + missing, unit)
        return own + missing / moved

    def _solved(self, rows: Floats, along: Floats, variances: Floats, noise: float) -> Floats:
        """float64 (n, num_items): the changes that explain rows (num_items, d + 1)."""
        noise = max(noise, self._played.noise_std**2, 1e-12)
        equations = np.concatenate([along, np.ones((len(along), 1))], axis=1) * self._scale
        right, found = rows * self._scale, np.empty_like(variances)
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            spread = variances[:, some].T[:, :, None] * equations  # (items, n, d + 1)
            system = equations.T @ spread + noise * np.eye(equations.shape[1])
            weights = np.linalg.solve(system, right[some][:, :, None])
            found[:, some] = (spread @ weights)[:, :, 0].T
        return found

    def _unit(self, change: Floats, histories: Mapping[int, Codes]) -> Floats:
        """float64 (n, 1): how far a client moves an own item whose score is 0."""
        units = []
        for place, client in enumerate(self._cohort):
            items = histories[client]
            moved = change[place, items] / self._pulls[place, items]
            units.append(float(np.median(moved[moved > 0])) if (moved > 0).any() else np.nan)
        found = np.array(units)
        usual = np.nanmedian(found) if np.isfinite(found).any() else 1.0
        return np.where(np.isfinite(found), found, usual)[:, None]

    def _negatives(self, sizes: Codes) -> Floats:
        """float64 (n, num_items): what clients of such activity do to items they do not have."""
        one = np.zeros(1, np.int64)  # the only item that is spared
        supposed = {c: np.repeat(one, int(m)) for c, m in zip(self._cohort, sizes, strict=True)}
        attack = self._attack
        updates = attack.imitation.updates(self._played, supposed, keep=False)
        change = changes(updates, self._played.cohort, attack.factors, attack.num_items)
        change[:, one] = 0.0
        return change

    def _find_sizes(self, change: Floats, unit: Floats) -> None:
        """Take the activities whose negatives fit what was found of each client best."""
        if not len(self._open):
            return
        if not self._profiles:
            count = len(self._cohort)
            self._profiles = [
                self._negatives(np.full(count, step)).astype(np.float32) for step in self._steps
            ]
        share = np.maximum(change.sum(axis=0) - np.mean(self._profiles, axis=0).sum(axis=0), 0.0)
        share = share / max(float(share.sum()), 1e-12)
        errors = [
            _bounded(change - profile - unit * self._pulls * step * share, _OUTLIER * unit)
            for step, profile in zip(self._steps, self._profiles, strict=True)
        ]
        best = self._steps[np.argmin(errors, axis=0)]
        self.sizes[self._open] = best[self._open]


def _bounded(errors: Floats, most: Floats) -> Floats:
    """float64 (n,): sums of squares of which none counts more than the square of `most`."""
    return np.asarray((np.minimum(np.abs(errors), most) ** 2).sum(axis=1))


def _mixed(change: Floats, along: Floats) -> Floats:
    """float64 (num_items, d + 1): the sum of what clients change along their vectors."""
    return np.concatenate([change.T @ along, change.sum(axis=0)[:, None]], axis=1)


def _pulls(
    given: Mapping[str, NDArray[np.float32]], factors: BilinearForm, vectors: Floats
) -> Floats:
    """float64 (n, num_items): the slope of the loss at each own item's score, 1 at a score of 0."""
    scores = vectors @ given[factors.item].T.astype(np.float64) + given[factors.item_bias][:, 0]
    return np.maximum(2.0 / (1.0 + np.exp(np.minimum(scores, 30.0))), 0.05)


def _usual_activity(played: Sum, num_items: int) -> int:
    """How many items a client has on average; weights of 1 do not tell."""
    usual = round(played.weight / max(len(played.cohort), 1))
    return int(np.clip(usual if usual > 1 else num_items // 20, 1, num_items // 2))


def _best(score: Floats, count: int) -> Codes:
    """int64 (count,): the items of the highest scores."""
    return np.argsort(-score, kind="stable")[:count].astype(np.int64)
