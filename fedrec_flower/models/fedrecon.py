"""FedRecon: user vectors are rebuilt from the history whenever they are needed, and never kept.

Shared: item vectors, item biases. Personal: user vectors, of which a client keeps no state: they
start from zero and are fitted to the history by gradient descent with the items held fixed. Then
the items learn with the user vectors held fixed. The same function rebuilds them in training, from
the items as they are at that step, and in evaluation, from the items the server has just averaged;
so users who never trained can be scored as well.

What is rebuilt from is the paper's support set: a share of the history drawn anew in each local
epoch, and in evaluation all of it. To rank, items that the user did not have stand beside it, a
draw that depends on the history alone. What the items learn from, the query set, is the whole
history, as in the authors' library unless told otherwise.

Source: Singhal et al. 2021, "Federated reconstruction: partially local federated learning",
Algorithm 1.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from fedrec_flower.core.errors import require
from fedrec_flower.models.base import middle
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.ops.reconstruction import ReconstructionConfig, reconstruct_users

_TOO_FAR = 2.0  # as far again as the lowest point: there the parabola is as high as at the start


class FedRecon(HistoryRecommender):
    """State = user vector, after a few steps of descent from zero on the support set.

    A step moves against the gradient of the mean loss of the support set: cross-entropy to rank,
    half the squared error to rate, whatever the items learn by. It goes as far as suits the items
    as they are: vectors grow from round to round, and a learning rate that suits the first would
    overshoot in the last. Along the gradient the loss lies under a parabola that bends as the loss
    does at most; `rebuilding_rate` is in units of the way to its lowest point.

    Args:
        num_users: how many users are loaded at first.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "ranking" or "rating".
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial item vectors.
        num_steps: gradient steps that fit a user vector, at least 1.
        rebuilding_rate: how far a step goes, in the units above, in (0, 2): the loss then falls
            with every step.
        support_negatives: items beside each of the history that the user did not have; none are
            read to rate.
        support_share: share of the support set that a local epoch rebuilds from, in (0, 1].
    """

    history_rows: ClassVar = HistoryRecommender.scored_rows
    item_rows: ClassVar = HistoryRecommender.scored_rows

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        num_steps: int,
        rebuilding_rate: float,
        support_negatives: int,
        support_share: float,
    ) -> None:
        for name, count, least in (
            ("embedding_dim", embedding_dim, 1),
            ("num_steps", num_steps, 1),
            ("support_negatives", support_negatives, 0),
        ):
            require(count >= least, f"model.{name} must be at least {least}: {count}")
        require(init_std >= 0, f"model.init_std must not be negative: {init_std}")
        falls = 0 < rebuilding_rate < _TOO_FAR
        require(falls, f"model.rebuilding_rate must be between 0 and 2: {rebuilding_rate}")
        possible = 0 < support_share <= 1
        require(possible, f"model.support_share must be in (0, 1]: {support_share}")
        super().__init__(num_users)
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.item_bias = nn.Embedding(num_items, 1)
        self.rates = task == "rating"
        self.start = middle(rating_range) if self.rates else 0.0
        self.num_negatives = 0 if self.rates else support_negatives
        self.num_steps, self.rebuilding_rate = num_steps, rebuilding_rate
        self.init_std, self.input_dropout = init_std, 1 - support_share

    def read(self, history: History) -> Tensor:
        """See `HistoryRecommender.read`; no gradient flows back into the items."""
        item, bias = self.item_embedding.weight.detach(), self.item_bias.weight.detach()
        how = ReconstructionConfig(self.num_steps, np.float32(self.rebuilding_rate), self.rates)
        return reconstruct_users(item, bias + self.start, history, how)
