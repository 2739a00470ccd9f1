"""Explicit boosting: malicious clients push the targets up for their own users, and hard.

Each learns honestly and then replaces what it sends of the targets by a boosted step that raises
the targets' scores for its own users. It needs no knowledge of others: what raises an item for one
user raises it for those alike, and the item's bias for all.

Source: Zhang et al. 2022 (PipAttack), its explicit promotion, which is also its baseline of that
name; boosted as in Bhagoji et al. 2019. PipAttack's other parts, to look like popular items and
to keep near to honest updates, are not here.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from fedrec_flower.core.errors import require
from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.models.base import Recommender
from fedrec_flower.threats.item_gradients import Own, Rows, Scoring, Sent, rewritten
from fedrec_flower.threats.poisoning import Poisoning


@dataclass(frozen=True)
class ExplicitBoosting(Poisoning):
    """A boosted step up the mean log-likelihood that a client's users like the targets.

    Attributes:
        boost: length of the step, in units of a learning rate: what the gradient by a target's
            row is multiplied by.
        model: the recommender; must score by products with item vectors.
        malicious: see `Poisoning`, like all that follow.
        num_targets: how many items are promoted.
        least_popular: share of the catalogue that targets are drawn from.
        targets: original ids of the promoted items, instead of drawn ones.
        seed: the experiment's seed.
        data: the prepared data.
    """

    boost: float
    model: Recommender
    scoring: Scoring = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        require(self.boost > 0, f"attack.boost must be above 0: {self.boost}")
        object.__setattr__(self, "scoring", Scoring.of(self.model))

    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],
        own: Own,
        tables: Collection[str],
        round_: int,
    ) -> Updates:
        """See `NoAttack.poison`."""
        del round_
        places = self.lying(updates)
        if self.scoring.factors.item not in updates.tensors or not len(places):
            return updates
        sent = {}
        for place, client in zip(places, updates.clients[places].tolist(), strict=True):
            shared = given(client)
            targets = self.scoring.rows(shared)[self.promoted]
            faces = self.scoring.faces(client, shared, own)
            push = self.scoring.changes(self.boost * ascent(faces, targets))
            learnt = Sent.of(updates, place, tables)
            sent[place] = Sent(self.promoted, push).over(learnt)
        return rewritten(updates, sent, tables)


def ascent(faces: Rows, targets: Rows) -> Rows:
    """The gradient of the mean of log sigmoid(face . row) over users, by each target's row.

    Args:
        faces: float32 (num_users, d + 1).
        targets: float32 (num_targets, d + 1).

    Returns:
        float32 (num_targets, d + 1).
    """
    doubt = np.exp(-np.logaddexp(0, targets @ faces.T))  # sigmoid of minus the score
    mean: Rows = doubt @ faces / np.float32(len(faces))
    return mean
