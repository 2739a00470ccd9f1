"""Explicit boosting: malicious clients send a boosted step that raises the targets' scores.

Each malicious client trains honestly and then replaces its update of the targets by a boosted step
that raises their scores for its own users. It needs no data of other users: a step that raises an
item for one user also raises it for similar users, and the item's bias raises it for all.

Source: Zhang et al. 2022 (PipAttack), the explicit promotion, also a baseline of that name there;
boosting as in Bhagoji et al. 2019. The other parts of PipAttack, similarity to popular items and a
bound on the distance to honest updates, are not implemented.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.models.base import Recommender
from fedrec_flower.threats.item_gradients import (
    BilinearScores,
    ItemRows,
    Own,
    replace_item_rows,
)
from fedrec_flower.threats.poisoning import Poisoning


@dataclass(frozen=True)
class ExplicitBoosting(Poisoning):
    """A boosted ascent step of the mean log-likelihood that a client's users like the targets.

    Attributes:
        boost: multiplier of the gradient by a target's row, in units of a learning rate.
        model: the recommender; its scores must be products with item vectors.
        malicious: see `Poisoning`, also for the following attributes.
        num_targets: number of promoted items.
        least_popular: share of the catalogue that targets are drawn from.
        targets: original ids of the promoted items; None to draw them.
        seed: the experiment's seed.
        data: the prepared data.
    """

    boost: float
    model: Recommender
    scoring: BilinearScores = field(init=False)

    def __post_init__(self) -> None:
        """Validate the values."""
        super().__post_init__()
        require(self.boost > 0, f"attack.boost must be above 0: {self.boost}")
        object.__setattr__(self, "scoring", BilinearScores.of(self.model))

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
            shared = given(client)
            targets = self.scoring.rows(shared)[self.promoted]
            faces = self.scoring.faces(client, shared, own)
            step = self.scoring.changes(self.boost * ascent(faces, targets))
            honest = ItemRows.of(updates, place, tables)
            sent[place] = ItemRows(self.promoted, step).over(honest)
        return replace_item_rows(updates, sent, tables)


def ascent(faces: Float32Array, targets: Float32Array) -> Float32Array:
    """The gradient of the mean of log sigmoid(face . row) over users, by each target's row.

    Args:
        faces: float32 (num_users, d + 1).
        targets: float32 (num_targets, d + 1).

    Returns:
        float32 (num_targets, d + 1).
    """
    slope = np.exp(-np.logaddexp(0, targets @ faces.T))  # sigmoid(-score)
    mean: Float32Array = slope @ faces / np.float32(len(faces))
    return mean
