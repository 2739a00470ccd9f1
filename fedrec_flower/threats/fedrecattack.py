"""FedRecAttack: a gradient attack that approximates user vectors from public interactions.

Malicious clients have a small share of all users' interactions, such as public likes or comments.
In each round they fit user vectors to these interactions with the current item vectors. They take
the gradient of a loss that ranks every target above the last place of each of these users' lists.
They send the longest rows of this gradient as their update, each row clipped to a bound.

Source: Rong, Ye, Zhao, Yuen, Chen and He 2022, "FedRecAttack: model poisoning attack to federated
recommendation", ICDE. Two differences: user vectors are fitted again in every round, so that nodes
store no state and runs can be resumed; and all malicious clients send rows of the same gradient
instead of passing on the remainder, so that a client's update does not depend on the other
malicious clients of its node.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from zlib import crc32

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray, Float32Array, Float64Array, IndexArray, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.interactions import Part
from fedrec_flower.models.base import Recommender
from fedrec_flower.threats.item_gradients import (
    BilinearScores,
    ItemRows,
    Own,
    faced,
    replace_item_rows,
)
from fedrec_flower.threats.poisoning import Poisoning

_USERS_PER_CHUNK = 1000  # users whose scores of the whole catalogue are in memory together


@dataclass(frozen=True, slots=True)
class Public:
    """The public interactions.

    Attributes:
        users: number of users with a public interaction.
        user: int64 (n,), index of the user, from 0, ascending.
        item: int64 (n,), item codes.
    """

    users: int
    user: IndexArray
    item: IndexArray


@dataclass(frozen=True)
class FedRecAttack(Poisoning):
    """The gradient attack with partial knowledge.

    Attributes:
        public: share of the training interactions that is public; above 0.
        max_rows: number of item rows that a malicious client changes, including the targets.
        max_row_norm: largest norm of the change of an item row, vector and bias, in units of the
            parameters.
        top_k: length of the lists in which the targets are to appear.
        steps: number of Adam steps that fit user vectors.
        learning_rate: learning rate of these steps.
        model: the recommender; its scores must be products with item vectors.
        malicious: see `Poisoning`, also for the following attributes.
        num_targets: number of promoted items.
        least_popular: share of the catalogue that targets are drawn from.
        targets: original ids of the promoted items; None to draw them.
        seed: the experiment's seed.
        data: the prepared data.
    """

    public: float
    max_rows: int
    max_row_norm: float
    top_k: int
    steps: int
    learning_rate: float
    model: Recommender
    scoring: BilinearScores = field(init=False)
    directions: dict[tuple[int, int], Float32Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the values."""
        super().__post_init__()
        require(0 < self.public <= 1, f"attack.public must be above 0, up to 1: {self.public}")
        least = len(self.promoted)
        rows = self.max_rows
        require(rows >= least, f"attack.max_rows must be at least the {least} targets: {rows}")
        most = self.data.num_items - least
        k = self.top_k
        require(1 <= k <= most, f"attack.top_k must be from 1 to {most}: {k}")
        for name in ("max_row_norm", "steps", "learning_rate"):
            value = getattr(self, name)
            require(value > 0, f"attack.{name} must be above 0: {value}")
        object.__setattr__(self, "scoring", BilinearScores.of(self.model))

    @cached_property
    def known(self) -> Public:
        """The public interactions, the same in every round and on every node."""
        train = self.data.part(Part.TRAIN)
        shown = generator(self.seed, "public").random(len(train.item)) < self.public
        users, user = np.unique(train.users()[shown], return_inverse=True)
        return Public(len(users), user, np.asarray(train.item)[shown].astype(np.int64))

    @override
    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],
        own: Own,
        tables: Collection[str],
        round_: int,
    ) -> Updates:
        places = self.malicious_places(updates)
        if self.scoring.factors.item not in updates.tensors or not len(places):
            return updates
        sent = {}
        for place, client in zip(places, updates.clients[places].tolist(), strict=True):
            direction = self._direction(self.scoring.rows(given(client)), round_)
            sent[place] = self._sent(direction, client, round_)
        return replace_item_rows(updates, sent, tables)

    def _sent(self, direction: Float32Array, client: int, round_: int) -> ItemRows:
        """The targets' rows, and other rows sampled with probabilities proportional to norms."""
        lengths = np.linalg.norm(direction, axis=1).astype(np.float64)
        lengths[self.promoted] = 0
        count = min(self.max_rows - len(self.promoted), int(np.count_nonzero(lengths)))
        rng = generator(self.seed, "poisoned-rows", round_, client)
        others = rng.choice(len(lengths), count, replace=False, p=_probabilities(lengths))
        rows = np.sort(np.concatenate([self.promoted, others]))
        return ItemRows(rows, self.scoring.changes(clip_rows(direction[rows], self.max_row_norm)))

    def _direction(self, rows: Float32Array, round_: int) -> Float32Array:
        """Minus the gradient of the loss: float32 (num_items, d + 1).

        It is cached for the round, because all clients with equal parameters have the same one.
        """
        key = round_, crc32(rows.data)
        if key not in self.directions:
            for old in [other for other in self.directions if other[0] != round_]:
                del self.directions[old]
            self.directions[key] = self._compute_direction(rows, round_)
        return self.directions[key]

    def _compute_direction(self, rows: Float32Array, round_: int) -> Float32Array:
        rng = generator(self.seed, "public-negatives", round_)
        faces = faced(fit_user_vectors(rows, self.known, self.steps, self.learning_rate, rng))
        direction = np.zeros_like(rows)
        for start in range(0, self.known.users, _USERS_PER_CHUNK):
            users = np.arange(start, min(start + _USERS_PER_CHUNK, self.known.users))
            had = np.zeros((len(users), len(rows)), bool)
            in_chunk = np.isin(self.known.user, users)
            had[self.known.user[in_chunk] - start, self.known.item[in_chunk]] = True
            direction += promotion_direction(faces[users], rows, had, self.promoted, self.top_k)
        return direction


def fit_user_vectors(
    rows: Float32Array, known: Public, steps: int, learning_rate: float, rng: np.random.Generator
) -> Float32Array:
    """Fit user vectors to public interactions by the BPR loss, with fixed item rows.

    Source: Rong et al. 2022.

    Args:
        rows: float32 (num_items, d + 1), item rows.
        known: the public interactions.
        steps: number of Adam steps, starting from zero vectors; each has one sampled negative for
            each public interaction.
        learning_rate: learning rate of Adam.
        rng: draws the negatives.

    Returns:
        float32 (num_users, d).
    """
    import torch

    vectors = torch.zeros(known.users, rows.shape[1] - 1, requires_grad=True)
    user, liked = torch.from_numpy(known.user), rows[known.item]
    adam = torch.optim.Adam([vectors], lr=learning_rate)
    for _ in range(steps):
        negatives = rng.integers(0, len(rows), len(liked))
        difference = torch.from_numpy(liked - rows[negatives])
        margin = (vectors[user] * difference[:, :-1]).sum(dim=1) + difference[:, -1]
        loss = torch.nn.functional.softplus(-margin).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        adam.step()
    fitted: Float32Array = vectors.detach().numpy()
    return fitted


def promotion_direction(
    faces: Float32Array, rows: Float32Array, had: BoolArray, targets: IndexArray, top_k: int
) -> Float32Array:
    """Minus the gradient of a loss that ranks targets in the users' lists.

    The loss is the sum of g(s - t) over users and their new targets, where s is the score of the
    last item in the user's list of non-targets and t the target's score; g(x) = x above 0 and
    exp(x) - 1 below, so that a target that is already in the list has a small gradient.
    Source: Rong et al. 2022.

    Args:
        faces: float32 (num_users, d + 1).
        rows: float32 (num_items, d + 1).
        had: bool (num_users, num_items), true for items that are not recommended to the user.
        targets: int64 (num_targets,), item codes.
        top_k: length of a list.

    Returns:
        float32 (num_items, d + 1), minus the gradient by each item's row.
    """
    scores = faces @ rows.T
    target_scores = scores[:, targets]
    scores[had] = -np.inf
    scores[:, targets] = -np.inf
    last = np.argpartition(-scores, top_k - 1, axis=1)[:, top_k - 1]
    gap = np.take_along_axis(scores, last[:, None], axis=1) - target_scores
    slope = np.where(had[:, targets], 0, np.exp(np.minimum(gap, 0))).astype(np.float32)
    direction = np.zeros_like(rows)
    direction[targets] = slope.T @ faces
    np.subtract.at(direction, last, slope.sum(axis=1, keepdims=True) * faces)
    return direction


def clip_rows(rows: Float32Array, longest: float) -> Float32Array:
    """Scale rows, (n, d), with a norm above `longest` to that norm."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Float32Array = rows * np.minimum(1, longest / np.maximum(length, longest)).astype(
        np.float32
    )
    return scaled


def _probabilities(lengths: Float64Array) -> Float64Array | None:
    """Probabilities proportional to lengths; None, for equal probabilities, if all are zero."""
    total = lengths.sum()
    return lengths / total if total > 0 else None
