"""What every recommender is: a scorer of (user, item) pairs whose tensors have owners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, IndexArray, Tensors
from fedrec_flower.data.prepared import Columns

PAIRS_AT_ONCE = 200_000  # some 50 MB of hidden activations, whatever the catalogue


@dataclass(frozen=True, slots=True)
class BilinearForm:
    """Which parameters make up a score of factors; "" where the model has none such.

    score = global bias + user bias + item bias + sum over d of weight[d] * user[d] * item[d]

    Attributes:
        user: name of the user vectors, (num_users, d).
        item: name of the item vectors, (num_items, d).
        item_bias: name of the item biases, (num_items, 1).
        user_bias: name of the user biases, (num_users, 1).
        global_bias: name of the global bias, (1,).
        weight: name of the weights, (1, d).
    """

    user: str
    item: str
    item_bias: str = ""
    user_bias: str = ""
    global_bias: str = ""
    weight: str = ""


class Recommender(nn.Module, ABC):
    """A scorer whose parameters have owners.

    A parameter whose name stands in `user_rows` has one row per user, and stays on the client
    that holds the user. One in `item_rows` has one row per item, so a client needs, changes and
    sends only the rows it touches. Names in `personal` never leave the client either, though
    they have no row per user. Everything else is shared and dense. Of a shared parameter in
    `tuned` the client also keeps what its last training made of it, and scores with that. One in
    `frozen` is never trained, so it travels down and never up. Buffers may stand in `user_rows` and
    `item_rows` too: `features` says what they hold. In a share `history_dropout` of the rounds it
    is told that a user had nothing.

    Users and items are numbered from zero within whatever tables are loaded: a client's users in
    its own table, a client's touched items in its sub-model.
    """

    user_rows: ClassVar[frozenset[str]] = frozenset()
    item_rows: ClassVar[frozenset[str]] = frozenset()
    personal: ClassVar[frozenset[str]] = frozenset()
    losses_below_zero: ClassVar[bool] = False  # whether `penalty` may make a loss negative
    tuned: frozenset[str] = frozenset()
    history_dropout: float = 0.0
    frozen: frozenset[str] = frozenset()

    @abstractmethod
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Score pairs.

        Args:
            users: int64 (batch,), rows of the user tables.
            items: int64 (batch,), rows of the item tables.

        Returns:
            float32 (batch,): higher is better; for rating models, in raw rating units.
        """

    def score_all(self, users: Tensor) -> Tensor:
        """Score every loaded item for each user.

        Args:
            users: int64 (batch,).

        Returns:
            float32 (batch, num_items), equal to `forward` on every pair.
        """
        num_items = len(self.get_parameter(min(self.item_rows)))
        items = torch.arange(num_items)
        size = max(PAIRS_AT_ONCE // num_items, 1)
        batches = [users[start : start + size] for start in range(0, len(users), size)]
        rows = [self(b.repeat_interleave(num_items), items.repeat(len(b))) for b in batches]
        return torch.cat(rows).view(len(users), num_items)

    def features(
        self,
        attributes: Float32Array,
        history: Columns,
        items: IndexArray | None,
    ) -> Tensors:
        """What is known of the loaded users and items: values of the model's buffers.

        Buffers are looked up as parameters are and may stand in `user_rows` and `item_rows`, but
        they never change and never travel: a client makes them of what it has, whenever it trains
        or is scored. None by default.

        Args:
            attributes: float32 (num_users, num_attributes), what the loaded users say of
                themselves.
            history: what they had, items by their codes.
            items: int64 (n,), codes of the loaded items; None for the whole catalogue.
        """
        del attributes, history, items
        return {}

    def observe(self, history: Columns) -> None:
        """Hear what the loaded users have interacted with, before they are scored.

        Models that score by vectors alone need not.

        Args:
            history: the training interactions of the loaded users, in the order of their rows.
        """

    def phases(self, epoch: int) -> list[frozenset[str]]:
        """Which parameters learn from a batch of a local epoch: sets, one step after another.

        For models that train their parts in turn; by default all learn at once.

        Args:
            epoch: the local epoch, counted from zero.
        """
        del epoch
        return [frozenset(name for name, _ in self.named_parameters())]

    def begin(self, round_: int) -> None:
        """Hear which round is trained, for models whose objective changes with it."""

    def settle(self, shared: Tensors, rng: np.random.Generator) -> Tensors:
        """What the server makes of the shared parameters after it has moved them; as they are.

        For models that rewrite themselves between rounds without changing a score.

        Args:
            shared: by name; nothing where nothing travels. Where several versions are handed out,
                with an axis of versions in front.
            rng: of this round.
        """
        del rng
        return shared

    def penalty(self, users: Tensor, items: Tensor) -> Tensor | None:
        """What an objective adds to the loss of each pair; None, as by default, adds nothing.

        One that may be negative says so in `losses_below_zero`.

        Args:
            users: int64 (batch,), rows of the user tables.
            items: int64 (batch,), rows of the item tables.

        Returns:
            float32 (batch,).
        """
        del users, items
        return None

    def freeze(self, names: Sequence[str]) -> None:
        """Freeze parameters for good, beside those that the model never trains anyway.

        Args:
            names: of parameters, or what names begin with.

        Raises:
            ConfigError: if one names no parameter, or nothing is left to train.
        """
        every = [name for name, _ in self.named_parameters()]
        kind = type(self).__name__
        for start in names:
            known = any(name.startswith(start) for name in every)
            require(known, f"freeze={start!r} names no parameter of {kind}: it has {every}")
        frozen = self.frozen | {name for name in every if name.startswith(tuple(names))}
        left = set(every) - frozen
        require(bool(left), f"freeze={list(names)} leaves {kind} nothing to train: name fewer")
        self.frozen = frozen

    def factors(self) -> BilinearForm | None:
        """How the score is made of factors, if it is: such models train in a compiled loop."""
        return None

    def shared_names(self) -> list[str]:
        """Names of the parameters that travel, in the model's order."""
        stays = self.user_rows | self.personal
        return [name for name, _ in self.named_parameters() if name not in stays]

    def num_shared(self) -> int:
        """How many values travel."""
        return sum(self.get_parameter(name).numel() for name in self.shared_names())

    def personal_names(self) -> list[str]:
        """Names of the parameters that never leave the client, in the model's order."""
        shared = set(self.shared_names())
        return [name for name, _ in self.named_parameters() if name not in shared]

    def initial(self, names: list[str], rng: np.random.Generator) -> Tensors:
        """Draw initial values for the named parameters, shaped as they are now."""
        shapes = {name: tuple(self.get_parameter(name).shape) for name in names}
        return {name: self.initial_value(name, shape, rng) for name, shape in shapes.items()}

    @abstractmethod
    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Draw the initial value of one parameter, float32 of the given shape."""

    def load(self, tensors: Mapping[str, Float32Array]) -> None:
        """Put values into parameters and buffers; row counts may differ from those at construction.

        The tensors share memory with the arrays, which training therefore changes in place.
        """
        own = self.state_dict(keep_vars=True)
        for name, value in tensors.items():
            own[name].data = torch.from_numpy(value)


def check_vectors(embedding_dim: int, init_std: float) -> None:
    """Refuse vectors that cannot be.

    Raises:
        ConfigError: if they have no dimension, or a negative deviation at the start.
    """
    require(embedding_dim >= 1, f"model.embedding_dim must be at least 1: {embedding_dim}")
    require(init_std >= 0, f"model.init_std must not be negative: {init_std}")


def check_dropout(name: str, share: float) -> None:
    """Refuse a share left out that leaves nothing, or is none.

    Raises:
        ConfigError: names the setting.
    """
    require(0 <= share < 1, f"model.{name} must be in [0, 1): {share}")


def middle(rating_range: tuple[float, float] | None) -> float:
    """The middle of the range of ratings, raw units; 0 for implicit data."""
    return sum(rating_range or (0.0, 0.0)) / 2


def normal(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Float32Array:
    """Draw float32 values of the shape from a centred normal law with the standard deviation."""
    return rng.normal(0.0, std, shape).astype(np.float32)


def xavier_uniform(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Draw float32 dense weights (out, in). Source: Glorot and Bengio 2010, eq. 16."""
    bound = np.sqrt(6.0 / sum(shape))
    return rng.uniform(-bound, bound, shape).astype(np.float32)
