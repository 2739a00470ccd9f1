"""Models with a closed-form solution, which the server computes from sums over the clients."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedrec_flower.core.memory import require_memory
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns, starts
from fedrec_flower.models.abilities import HistoryBased
from fedrec_flower.models.base import Recommender

if TYPE_CHECKING:
    from numpy.typing import NDArray

Incidence = Any
"""scipy.sparse.csr_matrix (num_users, num_items); scipy is untyped."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The random error of sums over users; its mean is zero.

    Attributes:
        std: standard deviation of Gaussian noise in each value.
        answer_variance: variance of one user's debiased answer about one item, under randomized
            response.
        num_users: number of users who answered.
    """

    std: float = 0.0
    answer_variance: float = 0.0
    num_users: float = 0.0

    @classmethod
    def of_answers(cls, flip_rate: float, num_users: float) -> Self:
        """The error of `ClosedFormRecommender.debiased` sums.

        Args:
            flip_rate: probability that an answer was flipped, below 1/2.
            num_users: number of users who answered.
        """
        return cls(0.0, flip_rate * (1 - flip_rate) / (1 - 2 * flip_rate) ** 2, num_users)

    def __bool__(self) -> bool:
        """True if the error is not zero."""
        return bool(self.std or self.answer_variance)

    @property
    def of_items(self) -> float:
        """Standard deviation of the number of users of one item."""
        return float(np.sqrt(self.std**2 + self.num_users * self.answer_variance))

    @property
    def of_rare_pairs(self) -> float:
        """Standard deviation of the number of users of a pair of items without users.

        Pairs of popular items have more noise, which is aligned with the directions of the signal.
        """
        return float(np.sqrt(self.std**2 + self.num_users * self.answer_variance**2))

    def of_pairs(self, num_users_of_item: Float64Array) -> Float64Array:
        """Standard deviation of the number of users of each pair of items.

        A user's debiased answers about two items have the true values x and y as means and are
        independent, so their product has variance v^2 + v (x^2 + y^2) with v = `answer_variance`.

        Args:
            num_users_of_item: float64 (n,), estimates; negative values are treated as zero.

        Returns:
            float64 (n, n); the diagonal holds `of_items`.
        """
        count = np.maximum(num_users_of_item, 0.0)
        answer = self.answer_variance
        variance = self.std**2 + self.num_users * answer**2 + answer * np.add.outer(count, count)
        std: Float64Array = np.sqrt(variance)
        np.fill_diagonal(std, self.of_items)
        return std


NO_NOISE = Noise()


class ClosedFormRecommender(Recommender, HistoryBased):
    """A recommender that the server solves from sums over users, without gradients.

    Clients send *sufficient statistics*: arrays that are summed over users. The solution therefore
    equals that of a centralised fit, for any partition of the users. Note:

    - A round uses the statistics of its own cohort. With `clients_per_round` below all clients,
      the model is the one of these clients' data alone.
    - The statistics of one user reveal that user's history. Only sums over many users hide it, and
      the server needs no more than the sums: secure aggregation can hide each client's part.
    - Feedback is implicit: each interaction counts as one, ratings are ignored.

    Scores are computed from a user's history, so there are no user vectors to store: `set_history`
    sets the histories of the loaded users, which are empty until then.

    Args:
        num_users: number of users that are loaded first.
        num_items: size of the catalogue.

    Attributes:
        statistic_names: names of the statistics, in message order.
        node_bytes: bytes per pair of items to build the model and its statistics on a node, for
            models whose memory grows with the square of the catalogue.
        server_bytes: bytes per pair of items to sum statistics and solve on the server.
        bounded: True if `statistic_norms` is implemented, so that a client's part can be clipped.
    """

    statistic_names: ClassVar[tuple[str, ...]]
    node_bytes: ClassVar[float] = 0.0
    server_bytes: ClassVar[float] = 0.0
    bounded: ClassVar[bool] = False

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.require_memory(self.node_bytes, "a client")
        from scipy.sparse import csr_matrix  # imported here: most models do not need scipy

        self._history: Incidence = csr_matrix((num_users, num_items), dtype=np.float32)

    def require_memory(self, num_bytes: float, whose: str) -> None:
        """Check that arrays with a value per pair of items fit in memory.

        Args:
            num_bytes: bytes per pair of items.
            whose: "a client" or "the server", for the message.

        Raises:
            ConfigError: with the bytes needed and available.
        """
        if num_bytes:
            require_memory(
                num_bytes * self.num_items**2,
                f"{whose} of {type(self).__name__} with {self.num_items:,} items",
                "drop rare items, or choose a model whose memory grows with the items alone, such "
                "as popularity, ials or mf",
            )

    @abstractmethod
    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        """The statistics of users, summed over the users.

        Args:
            history: the users' training interactions.
            parameters: global shared parameters by name.
            share: float64 (num_users,), factor in [0, 1] of each user's statistics; None for 1.
                Only for models that are `bounded`.

        Returns:
            float64 arrays by name, as in `statistic_names`; shapes do not depend on the users.
        """

    def statistic_shapes(self, parameters: Tensors) -> dict[str, tuple[int, ...]]:
        """Shapes of the statistics by name."""
        no_users = Columns(starts([]), np.zeros(0, np.int32), None)
        statistics = self.statistics(no_users, parameters)
        return {name: value.shape for name, value in statistics.items()}

    @abstractmethod
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """Compute new shared parameters, on the server.

        Args:
            sums: `statistics`, summed over the users of all clients of a cohort.
            parameters: the shared parameters that the statistics were computed with.
            noise: random error of the sums.
        """

    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        """L2 norm of each client's statistics, summed over its users. Only if `bounded`.

        Args:
            history: the users' training interactions.
            user_offsets: int64 (num_clients + 1,), index of each client's first user.

        Returns:
            float64 (num_clients,).
        """
        raise NotImplementedError

    def largest_std(self, noise: Noise) -> float:
        """Standard deviation of the largest possible statistic: one that includes all users.

        Args:
            noise: random error of the sums, with its number of users.
        """
        return noise.of_items

    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        """Unbiased estimates of the statistics before randomized response.

        Args:
            sums: `statistics` of histories in which each user's answer about each item (whether
                the user had it) was flipped at random.
            flip_rate: probability of a flip, below 1/2.
            num_users: number of users in the sums.
        """
        if flip_rate:
            raise NotImplementedError
        del num_users
        return sums

    def separates_items(self, solution: Tensors) -> bool:
        """True if a solution scores any item above another; noise may hide all differences."""
        return any(value.any() for value in solution.values())

    @abstractmethod
    def score_histories(self, users: IndexArray) -> Float32Array:
        """Score every item: float32 (n, num_items) for users int64 (n,), rows of the histories."""

    def solve_alone(self, history: Columns, parameters: Tensors, num_rounds: int) -> Tensors:
        """The result of `num_rounds` rounds with one client's history only."""
        for _ in range(num_rounds):
            parameters = self.solve(self.statistics(history, parameters), parameters)
        return parameters

    @override
    def set_history(self, history: Columns) -> None:
        self._history = incidence(history, self.num_items)

    @override
    def score_all(self, users: Tensor) -> Tensor:
        return torch.from_numpy(self.score_histories(users.numpy(force=True)))

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        distinct, row = torch.unique(users, return_inverse=True)
        return self.score_all(distinct)[row, items]

    def value(self, name: str) -> Float32Array:
        """A loaded parameter as an array."""
        array: Float32Array = self.get_parameter(name).numpy(force=True)
        return array


def incidence(history: Columns, num_items: int, value: Float64Array | None = None) -> Incidence:
    """Interactions as a sparse matrix (num_users, num_items) of ones, float32.

    Args:
        history: the users' interactions.
        num_items: size of the catalogue.
        value: float64 (num_users,), entries of each user's row instead of ones; the matrix is then
            float64.
    """
    from scipy.sparse import csr_matrix

    entries: NDArray[Any] = np.ones(len(history.item), np.float32)
    if value is not None:
        # float64: sums over users of rounded float32 could exceed each user's clipping bound.
        entries = np.repeat(value, np.diff(history.offsets)).astype(np.float64)
    shape = (len(history.offsets) - 1, num_items)
    return csr_matrix((entries, history.item, history.offsets), shape)
