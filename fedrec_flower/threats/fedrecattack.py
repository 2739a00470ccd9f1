"""FedRecAttack: a few public interactions tell what users are like, and so how to reach them.

Malicious clients know a small share of everyone's interactions, as from public likes or comments.
Each round they find user vectors that explain these by the item vectors they are given, take the
gradient of a loss that wants every target above the last place of each such user's list, and send
its strongest rows as their update, no row longer than a bound.

Source: Rong, Ye, Zhao, Yuen, Chen and He 2022, "FedRecAttack: model poisoning attack to federated
recommendation", ICDE. Other than there: vectors are found afresh every round, so that nodes keep
nothing and runs go on after a stop; and all send rows of the same gradient instead of handing on
what is left of it, so that a client's update does not depend on who else is malicious on its node.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.data.interactions import Part
from fedrec_flower.models.base import Recommender
from fedrec_flower.threats.item_gradients import Own, Rows, Scoring, Sent, faced, rewritten
from fedrec_flower.threats.poisoning import Poisoning

_AT_ONCE = 1000  # users whose scores of the whole catalogue are held at a time


@dataclass(frozen=True, slots=True)
class Public:
    """What everyone may see of what users had.

    Attributes:
        users: how many users have a public interaction.
        user: int64 (n,), who had it, from 0, ascending.
        item: int64 (n,), what.
    """

    users: int
    user: NDArray[np.int64]
    item: NDArray[np.int64]


@dataclass(frozen=True)
class FedRecAttack(Poisoning):
    """The gradient attack with partial knowledge.

    Attributes:
        public: share of the training interactions that is public; above 0.
        max_rows: how many item rows a malicious client changes, the targets among them.
        max_row_norm: the longest change of an item row, vector and bias, in units of the
            parameters.
        top_k: places of the lists that targets shall reach.
        steps: of Adam, in which vectors of users are found.
        learning_rate: of these.
        model: the recommender; must score by products with item vectors.
        malicious: see `Poisoning`, like all that follow.
        num_targets: how many items are promoted.
        least_popular: share of the catalogue that targets are drawn from.
        targets: original ids of the promoted items, instead of drawn ones.
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
    scoring: Scoring = field(init=False)
    found: dict[tuple[int, int], Rows] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        require(0 < self.public <= 1, f"attack.public must be above 0, up to 1: {self.public}")
        least, most = len(self.promoted), self.data.num_items - len(self.promoted)
        rows, k = self.max_rows, self.top_k
        require(rows >= least, f"attack.max_rows must be at least the {least} targets: {rows}")
        require(1 <= k <= most, f"attack.top_k must be from 1 to {most}: {k}")
        for name in ("max_row_norm", "steps", "learning_rate"):
            value = getattr(self, name)
            require(value > 0, f"attack.{name} must be above 0: {value}")
        object.__setattr__(self, "scoring", Scoring.of(self.model))

    @cached_property
    def known(self) -> Public:
        """The public interactions, the same in every round and on every node."""
        train = self.data.part(Part.TRAIN)
        shown = generator(self.seed, "public").random(len(train.item)) < self.public
        users, user = np.unique(train.users()[shown], return_inverse=True)
        return Public(len(users), user, np.asarray(train.item)[shown].astype(np.int64))

    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],
        own: Own,
        tables: Collection[str],
        round_: int,
    ) -> Updates:
        """See `NoAttack.poison`."""
        del own  # of the users of malicious clients nothing is asked
        places = self.lying(updates)
        if self.scoring.factors.item not in updates.tensors or not len(places):
            return updates
        sent = {}
        for place, client in zip(places, updates.clients[places].tolist(), strict=True):
            direction = self._direction(self.scoring.rows(given(client)), round_)
            sent[place] = self._sent(direction, client, round_)
        return rewritten(updates, sent, tables)

    def _sent(self, direction: Rows, client: int, round_: int) -> Sent:
        """The targets' rows and some others, the longer the likelier."""
        length = np.linalg.norm(direction, axis=1).astype(np.float64)
        length[self.promoted] = 0
        count = min(self.max_rows - len(self.promoted), int(np.count_nonzero(length)))
        rng = generator(self.seed, "poisoned-rows", round_, client)
        others = rng.choice(len(length), count, replace=False, p=_shares(length))
        rows = np.sort(np.concatenate([self.promoted, others]))
        return Sent(rows, self.scoring.changes(bounded(direction[rows], self.max_row_norm)))

    def _direction(self, rows: Rows, round_: int) -> Rows:
        """Down the loss: float32 (num_items, d + 1); sought once for all that are given alike."""
        version = round_, crc32(rows.data)
        if version not in self.found:
            for old in [key for key in self.found if key[0] != round_]:
                del self.found[old]
            self.found[version] = self._sought(rows, round_)
        return self.found[version]

    def _sought(self, rows: Rows, round_: int) -> Rows:
        """See `_direction`."""
        rng = generator(self.seed, "public-negatives", round_)
        faces = faced(explained(rows, self.known, self.steps, self.learning_rate, rng))
        down = np.zeros_like(rows)
        for start in range(0, self.known.users, _AT_ONCE):
            some = np.arange(start, min(start + _AT_ONCE, self.known.users))
            had = np.zeros((len(some), len(rows)), bool)
            seen = np.isin(self.known.user, some)
            had[self.known.user[seen] - start, self.known.item[seen]] = True
            down += promotion(faces[some], rows, had, self.promoted, self.top_k)
        return down


def explained(
    rows: Rows, known: Public, steps: int, learning_rate: float, rng: np.random.Generator
) -> Rows:
    """Vectors of users under which the items that they are known to like score above others.

    Source: Rong et al. 2022; the loss of BPR, item rows fixed.

    Args:
        rows: float32 (num_items, d + 1), item rows.
        known: what users are known to like.
        steps: of Adam, from zero, each with another item for each liked one.
        learning_rate: of Adam.
        rng: draws these.

    Returns:
        float32 (num_users, d).
    """
    import torch

    vectors = torch.zeros(known.users, rows.shape[1] - 1, requires_grad=True)
    user, liked = torch.from_numpy(known.user), rows[known.item]
    adam = torch.optim.Adam([vectors], lr=learning_rate)
    for _ in range(steps):
        others = rng.integers(0, len(rows), len(liked))
        difference = torch.from_numpy(liked - rows[others])
        margin = (vectors[user] * difference[:, :-1]).sum(dim=1) + difference[:, -1]
        loss = torch.nn.functional.softplus(-margin).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        adam.step()
    found: Rows = vectors.detach().numpy()
    return found


def promotion(
    faces: Rows, rows: Rows, had: NDArray[np.bool_], targets: NDArray[np.int64], top_k: int
) -> Rows:
    """Down the loss that wants targets among the first places of users' lists.

    The loss is the sum, over users and the targets they have not had, of g(s - t), where s is the
    score of the last item in the user's list of non-targets and t the target's; g(x) = x above 0,
    exp(x) - 1 below, so that what is reached is hardly pushed any further.
    Source: Rong et al. 2022.

    Args:
        faces: float32 (num_users, d + 1).
        rows: float32 (num_items, d + 1).
        had: bool (num_users, num_items), what is not recommended.
        targets: int64 (num_targets,).
        top_k: length of a list.

    Returns:
        float32 (num_items, d + 1), minus the gradient by each item's row.
    """
    scores = faces @ rows.T
    aims = scores[:, targets]
    scores[had] = -np.inf
    scores[:, targets] = -np.inf
    last = np.argpartition(-scores, top_k - 1, axis=1)[:, top_k - 1]
    gap = np.take_along_axis(scores, last[:, None], axis=1) - aims
    urge = np.where(had[:, targets], 0, np.exp(np.minimum(gap, 0))).astype(np.float32)
    down = np.zeros_like(rows)
    down[targets] = urge.T @ faces
    np.subtract.at(down, last, urge.sum(axis=1, keepdims=True) * faces)
    return down


def bounded(rows: Rows, longest: float) -> Rows:
    """Rows, (n, d), shortened where they are longer than allowed; their directions stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    kept: Rows = rows * np.minimum(1, longest / np.maximum(length, longest)).astype(np.float32)
    return kept


def _shares(length: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Chances in proportion to lengths; None, all alike, where all are zero."""
    total = length.sum()
    return length / total if total > 0 else None
