"""Base class of all recommenders: scores of (user, item) pairs from parameters with owners."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Tensors
from fedrec_flower.models.layers import Ownership

MAX_PAIRS_PER_BATCH = 200_000  # about 50 MB of hidden activations


class Recommender(nn.Module, ABC):
    """A model that scores (user, item) pairs.

    A new model implements `forward`, and `score_all` if a faster way than `forward` on all pairs
    exists. The layers that its constructor creates declare who owns each parameter: see
    `fedrec_flower.models.layers`. Optional abilities are mixins: see
    `fedrec_flower.models.abilities`. The other members are for the rest of the package.

    Users and items are numbered from zero within the loaded tables. On a client, the user tables
    hold its users, and in training the item tables hold the items that it touches.

    Attributes:
        ownership: owners and initial distributions of the parameters, read from the layers when
            the constructor returns.
    """

    ownership: Ownership
    _frozen_by_config: frozenset[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the ownership of parameters as soon as an instance is constructed."""
        super().__init_subclass__(**kwargs)
        setattr(cls, "__init__", _with_ownership(cls, cls.__init__))  # noqa: B010  # mypy refuses

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
        size = max(MAX_PAIRS_PER_BATCH // num_items, 1)
        batches = [users[start : start + size] for start in range(0, len(users), size)]
        rows = [self(b.repeat_interleave(num_items), items.repeat(len(b))) for b in batches]
        return torch.cat(rows).view(len(users), num_items)

    def score_clients(
        self, parameters: Mapping[str, Tensor], per_client: frozenset[str], num_users: int
    ) -> Tensor:
        """Score every item for the users of several clients with parameters of their own.

        The default maps `score_all` over the clients by `vmap`; a model that reads histories or
        buffers is not scored this way. Override it if the scores of many clients are one product
        of matrices.

        Args:
            parameters: all parameters by name; those in `per_client` have a leading axis of
                clients, those with a row per user are (num_clients, num_users, ...).
            per_client: names of the parameters that differ between clients.
            num_users: number of users of each client.

        Returns:
            float32 (num_clients, num_users, num_items), equal to `score_all` for each client.
        """
        users, scorer = torch.arange(num_users), _AllItems(self)

        def of_client(values: dict[str, Tensor]) -> Tensor:
            named = {f"model.{name}": value for name, value in values.items()}
            scores: Tensor = functional_call(scorer, named, (users,), strict=True)
            return scores

        in_dims = ({name: 0 if name in per_client else None for name in parameters},)
        scores: Tensor = vmap(of_client, in_dims=in_dims)(dict(parameters))
        return scores

    @property
    def user_rows(self) -> frozenset[str]:
        """Names of the parameters and buffers with a row per user, which stay on the client."""
        return self.ownership.user_rows

    @property
    def item_rows(self) -> frozenset[str]:
        """Names of the parameters and buffers with a row per item."""
        return self.ownership.item_rows

    @property
    def personal(self) -> frozenset[str]:
        """Names of the other parameters that never leave the client."""
        return self.ownership.personal

    @property
    def locally_adapted(self) -> frozenset[str]:
        """Names of the shared parameters whose locally trained value the client stores."""
        return self.ownership.locally_adapted

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the parameters that are never trained: they are received and never sent."""
        return self.ownership.frozen | self._frozen_by_config

    def freeze(self, names: Sequence[str]) -> None:
        """Freeze parameters in addition to those that the model declares as frozen.

        Args:
            names: names of parameters, or prefixes of names.

        Raises:
            ConfigError: if a name matches no parameter, or no parameter is left to train.
        """
        all_names = [name for name, _ in self.named_parameters()]
        kind = type(self).__name__
        for prefix in names:
            matches = any(name.startswith(prefix) for name in all_names)
            require(matches, f"freeze={prefix!r} names no parameter of {kind}: it has {all_names}")
        frozen = frozenset(name for name in all_names if name.startswith(tuple(names)))
        trained = set(all_names) - self.frozen - frozen
        require(bool(trained), f"freeze={list(names)} leaves {kind} nothing to train: name fewer")
        self._frozen_by_config |= frozen

    def shared_names(self) -> list[str]:
        """Names of the parameters that the server aggregates, in the model's order."""
        local = self.user_rows | self.personal
        return [name for name, _ in self.named_parameters() if name not in local]

    def num_shared(self) -> int:
        """Number of shared values."""
        return sum(self.get_parameter(name).numel() for name in self.shared_names())

    def personal_names(self) -> list[str]:
        """Names of the parameters that never leave the client, in the model's order."""
        shared = set(self.shared_names())
        return [name for name, _ in self.named_parameters() if name not in shared]

    def initial(self, names: list[str], rng: np.random.Generator) -> Tensors:
        """Draw initial values of the named parameters, in this order, with their present shapes."""
        shapes = {name: tuple(self.get_parameter(name).shape) for name in names}
        return {name: self.initial_value(name, shape, rng) for name, shape in shapes.items()}

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Draw the initial value of one parameter, float32 of the given shape."""
        return self.ownership.inits[name](shape, rng)

    def load(self, tensors: Mapping[str, Float32Array]) -> None:
        """Set parameters and buffers; numbers of rows may differ from those at construction.

        The tensors share memory with the arrays: training changes the arrays in place.
        """
        state = self.state_dict(keep_vars=True)
        for name, value in tensors.items():
            state[name].data = torch.from_numpy(value)


class _AllItems(nn.Module):
    """The function `score_all` of a model, whose parameters are named "model.<name>" here."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: Tensor) -> Tensor:
        scores: Tensor = self.model.score_all(users)
        return scores


def _with_ownership(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a class, followed by reading the ownership of its parameters."""

    @wraps(init)
    def construct(self: Recommender, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is cls:  # not in the constructor of a base class, whose layers are a part
            self.ownership = Ownership.of(self)
            self._frozen_by_config = frozenset()

    return construct


def check_vectors(embedding_dim: int, init_std: float) -> None:
    """Check the settings of vectors.

    Raises:
        ConfigError: if the dimension is below 1 or the standard deviation is negative.
    """
    require(embedding_dim >= 1, f"model.embedding_dim must be at least 1: {embedding_dim}")
    require(init_std >= 0, f"model.init_std must not be negative: {init_std}")


def check_dropout(name: str, share: float) -> None:
    """Check a dropout rate.

    Raises:
        ConfigError: if the share is not in [0, 1); names the setting.
    """
    require(0 <= share < 1, f"model.{name} must be in [0, 1): {share}")


def middle(rating_range: tuple[float, float] | None) -> float:
    """The middle of the rating range, raw units; 0 for implicit data."""
    if rating_range is None:
        return 0.0
    return sum(rating_range) / 2
