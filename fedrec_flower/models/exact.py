"""Models that are solved, not trained: the server needs nothing but sums over the clients."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.prepared import Columns, starts

Sums = dict[str, NDArray[np.float64]]  # statistic name -> its sum over users
Histories = Any  # scipy.sparse.csr_matrix (num_users, num_items); scipy is untyped


class ExactRecommender(Recommender):
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
    bounded: ClassVar[bool] = False  # whether `statistic_norms` knows what one user can contribute

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        from scipy.sparse import csr_matrix  # here: not every node needs it

        self._seen: Histories = csr_matrix((num_users, num_items), dtype=np.float32)

    @abstractmethod
    def statistics(
        self, history: Columns, parameters: Tensors, share: NDArray[np.float64] | None = None
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
    def solve(self, sums: Sums, parameters: Tensors, noise_std: float = 0.0) -> Tensors:
        """New shared parameters, on the server.

        Args:
            sums: `statistics`, summed over the users of all clients of a cohort.
            parameters: the shared parameters that the statistics were taken with.
            noise_std: standard deviation of the noise in each value of the sums, which they are
                the better read for.
        """

    def statistic_norms(self, history: Columns) -> NDArray[np.float64]:
        """float64 (num_users,): the L2 norm of all that each user tells, where it is `bounded`.

        Args:
            history: the users' training interactions, no item twice.
        """
        raise NotImplementedError

    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        """What statistics would have been on average, had no user lied.

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

    @abstractmethod
    def score_histories(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
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

    def value(self, name: str) -> NDArray[np.float32]:
        """A loaded parameter as an array."""
        array: NDArray[np.float32] = self.get_parameter(name).numpy(force=True)
        return array

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Zeros: before the first sum all items are alike."""
        del name, rng
        return np.zeros(shape, np.float32)


def incidence(
    history: Columns, num_items: int, value: NDArray[np.float64] | None = None
) -> Histories:
    """Who interacted with what: a sparse float32 (num_users, num_items) of ones.

    Args:
        history: the users' interactions.
        num_items: size of the catalogue.
        value: float64 (num_users,), what stands in a user's row in place of ones.
    """
    from scipy.sparse import csr_matrix

    ones = np.ones(len(history.item), np.float32)
    if value is not None:
        ones *= np.repeat(value, np.diff(history.offsets)).astype(np.float32)
    return csr_matrix((ones, history.item, history.offsets), (len(history.offsets) - 1, num_items))
