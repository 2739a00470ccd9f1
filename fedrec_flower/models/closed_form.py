"""Models that are solved, not trained: the server needs nothing but sums over the clients."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.core.memory import require_memory
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns, starts
from fedrec_flower.models.base import Recommender

if TYPE_CHECKING:
    from numpy.typing import NDArray

Histories = Any  # scipy.sparse.csr_matrix (num_users, num_items); scipy is untyped


@dataclass(frozen=True, slots=True)
class Noise:
    """The random error of sums over users, whose mean is zero.

    Attributes:
        std: standard deviation of Gaussian noise in each value.
        answer_variance: variance of one user's debiased answer about one item, where answers were
            flipped at random.
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
        """Whether there is any."""
        return bool(self.std or self.answer_variance)

    @property
    def of_items(self) -> float:
        """Standard deviation of the number of users of one item."""
        return float(np.sqrt(self.std**2 + self.num_users * self.answer_variance))

    @property
    def of_rare_pairs(self) -> float:
        """Standard deviation of the number of users of a pair of items that nobody had.

        Noise beyond that follows the items' own users, and so the directions of the signal.
        """
        return float(np.sqrt(self.std**2 + self.num_users * self.answer_variance**2))

    def of_pairs(self, num_users_of_item: Float64Array) -> Float64Array:
        """Standard deviation of the number of users of each pair of items.

        A user's debiased answers about two items have the true values x and y as means and are
        independent, so their product has variance v^2 + v (x^2 + y^2) with v = `answer_variance`.

        Args:
            num_users_of_item: float64 (n,), estimates; negative ones count as zero.

        Returns:
            float64 (n, n); the diagonal holds `of_items`.
        """
        had, answer = np.maximum(num_users_of_item, 0.0), self.answer_variance
        variance = self.std**2 + self.num_users * answer**2 + answer * np.add.outer(had, had)
        std: Float64Array = np.sqrt(variance)
        np.fill_diagonal(std, self.of_items)
        return std


NO_NOISE = Noise()


class ClosedFormRecommender(Recommender):
    """A recommender that the server solves from sums over users, without gradients.

    Clients send *sufficient statistics*: arrays that add up over users. What the server solves
    is therefore what a centralised fit gives, whoever holds whom. Several cautions:

    - A round solves from its own cohort. With `clients_per_round` below all clients, the model
      is the one that these clients' data alone would give.
    - The statistics of one user tell that user's history. Only sums over many users hide it,
      which is all the server needs: secure aggregation may hide every summand.
    - Feedback is implicit: whoever interacted counts as one, ratings are not read.

    Scores follow from a user's history, so there are no user vectors to keep: `observe` brings
    the histories of the loaded users, and until then everybody's is empty.

    Args:
        num_users: how many users are loaded at first.
        num_items: size of the catalogue.
    """

    statistic_names: ClassVar[tuple[str, ...]]  # in message order
    # Bytes for each pair of items, where memory grows with the square of the catalogue.
    node_bytes: ClassVar[float] = 0.0  # to build the model and make statistics
    server_bytes: ClassVar[float] = 0.0  # to add statistics up and solve them
    bounded: ClassVar[bool] = False  # whether `statistic_norms` knows what a client contributes

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.require_memory(self.node_bytes, "a client")
        from scipy.sparse import csr_matrix  # here: not every node needs it

        self._seen: Histories = csr_matrix((num_users, num_items), dtype=np.float32)

    def require_memory(self, num_bytes: float, whose: str) -> None:
        """Refuse a catalogue whose square does not fit.

        Args:
            num_bytes: for each pair of items.
            whose: side, for the message.

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
        """What the users would send, summed.

        Args:
            history: the users' training interactions.
            parameters: global shared parameters by name.
            share: float64 (num_users,), what each user's are multiplied by, from 0 to 1; None for
                1. Only where they are `bounded`.

        Returns:
            float64 arrays by name, as in `statistic_names`; shapes depend on no user.
        """

    def statistic_shapes(self, parameters: Tensors) -> dict[str, tuple[int, ...]]:
        """Shapes of the statistics by name, as of nobody's history: they depend on no user."""
        nobody = Columns(starts([]), np.zeros(0, np.int32), None)
        return {name: sum_.shape for name, sum_ in self.statistics(nobody, parameters).items()}

    @abstractmethod
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """New shared parameters, on the server.

        Args:
            sums: `statistics`, summed over the users of all clients of a cohort.
            parameters: the shared parameters that the statistics were taken with.
            noise: the random error of the sums.
        """

    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        """The L2 norm of all that each client sends: of the sum over its users.

        Only where the statistics are `bounded`.

        Args:
            history: the users' training interactions.
            user_offsets: int64 (num_clients + 1,), where each client's users begin.

        Returns:
            float64 (num_clients,).
        """
        raise NotImplementedError

    def largest_std(self, noise: Noise) -> float:
        """Standard deviation of the largest statistic there can be: that of all users.

        Args:
            noise: the random error of the sums, with its number of users.
        """
        return noise.of_items

    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        """Estimates, without bias, of the statistics before answers were flipped.

        Args:
            sums: `statistics` of histories in which whether a user had an item was flipped, item
                by item.
            flip_rate: with which probability, below 1/2.
            num_users: how many users they are of.
        """
        if flip_rate:
            raise NotImplementedError
        del num_users
        return sums

    def tells_items_apart(self, solution: Tensors) -> bool:
        """Whether a solution scores any item above another; noise may have hidden everything."""
        return any(value.any() for value in solution.values())

    @abstractmethod
    def score_histories(self, users: IndexArray) -> Float32Array:
        """Score every item: float32 (n, num_items) for users int64 (n,), rows of what is loaded."""

    def solve_alone(self, history: Columns, parameters: Tensors, num_rounds: int) -> Tensors:
        """What `num_rounds` rounds would make of one client's history, were there no other."""
        for _ in range(num_rounds):
            parameters = self.solve(self.statistics(history, parameters), parameters)
        return parameters

    def observe(self, history: Columns) -> None:
        """See `Recommender.observe`."""
        self._seen = incidence(history, self.num_items)

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`."""
        return torch.from_numpy(self.score_histories(users.numpy(force=True)))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Recommender.forward`."""
        distinct, place = torch.unique(users, return_inverse=True)
        return self.score_all(distinct)[place, items]

    def value(self, name: str) -> Float32Array:
        """A loaded parameter as an array."""
        array: Float32Array = self.get_parameter(name).numpy(force=True)
        return array

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Zeros: before the first sum all items are alike."""
        del name, rng
        return np.zeros(shape, np.float32)


def incidence(history: Columns, num_items: int, value: Float64Array | None = None) -> Histories:
    """Who interacted with what: a sparse (num_users, num_items) of ones, float32.

    Args:
        history: the users' interactions.
        num_items: size of the catalogue.
        value: float64 (num_users,), what stands in a user's row in place of ones, in float64.
    """
    from scipy.sparse import csr_matrix

    ones: NDArray[Any] = np.ones(len(history.item), np.float32)
    if value is not None:
        # float64: sums over users of rounded float32 would exceed what clipping allows each.
        ones = np.repeat(value, np.diff(history.offsets)).astype(np.float64)
    return csr_matrix((ones, history.item, history.offsets), (len(history.offsets) - 1, num_items))
