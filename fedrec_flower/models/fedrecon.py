"""FedRecon: user vectors are reconstructed from the history when needed, and never stored.

Shared: item vectors, item biases. Personal: user vectors, without any stored state: they start
from zero and are fitted to the history by gradient descent with fixed items. Then the items learn
with fixed user vectors. The same function reconstructs them in training, from the items at that
step, and in evaluation, from the items that the server just averaged; so users who never trained
can be scored.

The support set of the paper is a share of the history, drawn again in each local epoch, and all
of it in evaluation. For ranking it also contains negatives (items that the user did not have); this
draw depends on the history only. The query set, from which the items learn, is the whole history,
as it is by default in the authors' library.

Source: Singhal et al. 2021, "Federated reconstruction: partially local federated learning",
Algorithm 1.
"""

import numpy as np
from torch import Tensor
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.models.base import middle
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.layers import ItemEmbedding, Normal, Zeros
from fedrec_flower.models.ops.reconstruction import ReconstructionConfig, reconstruct_users

# At twice the way to the lowest point, the bounding parabola is as high as at the start.
_MAX_RATE = 2.0


class FedRecon(HistoryRecommender):
    """State = user vector after a few gradient steps from zero on the support set.

    A step moves against the gradient of the mean loss of the support set: cross-entropy for
    ranking, half the squared error for rating, independent of the items' loss. Its length adapts
    to the present items: vectors grow from round to round, and a learning rate that suits the
    first round would be too large in the last. Along the gradient the loss lies below a parabola
    with the loss's largest curvature; `rebuilding_rate` is in units of the way to its lowest point.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "ranking" or "rating".
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial item vectors.
        num_steps: gradient steps that fit a user vector, at least 1.
        rebuilding_rate: length of a step in the units above, in (0, 2): the loss then decreases
            in every step.
        support_negatives: negatives per item of the history; not used for rating.
        support_share: share of the support set that a local epoch fits to, in (0, 1].
    """

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
        for name, count, minimum in (
            ("embedding_dim", embedding_dim, 1),
            ("num_steps", num_steps, 1),
            ("support_negatives", support_negatives, 0),
        ):
            require(count >= minimum, f"model.{name} must be at least {minimum}: {count}")
        require(init_std >= 0, f"model.init_std must not be negative: {init_std}")
        decreases = 0 < rebuilding_rate < _MAX_RATE
        require(decreases, f"model.rebuilding_rate must be between 0 and 2: {rebuilding_rate}")
        is_share = 0 < support_share <= 1
        require(is_share, f"model.support_share must be in (0, 1]: {support_share}")
        super().__init__(num_users)
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.predicts_ratings = task == "rating"
        self.score_offset = middle(rating_range) if self.predicts_ratings else 0.0
        self.num_negatives = 0 if self.predicts_ratings else support_negatives
        self.input_dropout = 1 - support_share
        self._config = ReconstructionConfig(
            num_steps, np.float32(rebuilding_rate), self.predicts_ratings
        )

    @override
    def encode_history(self, history: History) -> Tensor:
        # Detached: no gradient flows through the reconstruction into the items.
        item, bias = self.item_embedding.weight.detach(), self.item_bias.weight.detach()
        return reconstruct_users(item, bias + self.score_offset, history, self._config)
