"""Membership inference: was a user there when the published model was trained?

Whoever has the shared parameters and a user's history folds the user in: finds the vector that
explains the history best. Item vectors were fitted to the histories of those who trained, so
these are explained with less error than those of strangers. Nothing of the run but its result is
looked at.

Sources: Yeom et al. 2018, "Privacy risk in machine learning", section 3, for telling members by
their loss; Hu, Koren and Volinsky 2008, equation 4, for folding in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.attacks.matching import auc, auc_error
from fedrec_flower.attacks.none import NoAttack
from fedrec_flower.attacks.reading import by_item
from fedrec_flower.attacks.scene import Circumstances, Scene
from fedrec_flower.errors import require
from fedrec_flower.interactions import Part
from fedrec_flower.prepared import Prepared

Floats = NDArray[np.float64]

_FEWEST = 2  # of each kind, or there is no error to tell


@dataclass(frozen=True)
class MembershipInference(NoAttack):
    """`attack=membership_inference`: what the shared parameters tell of who was there.

    Members are users who trained, non-members those whose whole history is held out.

    Attributes:
        unseen_weight: weight of the items outside a history, against 1 for those in it.
        ridge: L2 pull on a user's vector, as a share of the mean squared length of a column of
            the table of item vectors.

    Raises:
        ConfigError: if a value is impossible.
    """

    unseen_weight: float
    ridge: float

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require(
            0 <= self.unseen_weight <= 1,
            f"attack.unseen_weight must be from 0 to 1: {self.unseen_weight}",
        )
        require(self.ridge > 0, f"attack.ridge must be above 0: {self.ridge}")

    def check(self, run: Circumstances) -> None:
        """See `NoAttack.check`."""
        require(
            run.shares and run.vectors,
            f"attack=membership_inference reads trained item vectors, and model={run.model} under "
            f"{run.strategy} publishes none: choose model=mf, or attack=none",
        )
        require(
            run.num_strangers >= _FEWEST,
            f"attack=membership_inference needs {_FEWEST} or more users who never trained, and "
            f"there are {run.num_strangers}: choose split=cold_users",
        )

    def spied(self, scene: Scene) -> dict[str, Any]:
        """What was found out.

        Args:
            scene: the run that is over.

        Returns:
            auc over users, its standard error auc_se, advantage (2 auc - 1), and how many members
            and non-members they are.
        """
        tables = by_item(scene.shared, scene.data.num_items)
        histories, member = _claims(scene.data, scene.participated)
        score = self.familiarity(np.concatenate(tables, axis=1), histories)
        ours, others = score[member], score[~member]
        counts = {"num_members": len(ours), "num_strangers": len(others)}
        if min(counts.values()) < _FEWEST:
            return counts
        area = auc(ours, others)
        error = auc_error(ours, others)
        return {"auc": area, "auc_se": error, "advantage": 2 * area - 1, **counts}

    def said(self, figures: Mapping[str, Any]) -> str:
        """See `NoAttack.said`."""
        if "auc" not in figures:
            return "membership inference found too few members or strangers to compare"
        return (
            f"membership inference from the published model: AUC {figures['auc']:.3f} ± "
            f"{figures['auc_se']:.3f} over {figures['num_members']} users who trained and "
            f"{figures['num_strangers']} who did not"
        )

    def familiarity(self, vectors: Floats, histories: list[NDArray[np.int32]]) -> Floats:
        """How well a vector of its own explains each history.

        Args:
            vectors: float64 (num_items, d), item vectors.
            histories: item codes of each user, at least one.

        Returns:
            float64 (num_users,): minus the mean squared error of 1 for the items of the history,
            by the vector that minimises it plus the weighted squares for all other items.
        """
        everything = vectors.T @ vectors
        size = vectors.shape[1]
        pull = self.ridge * max(float(np.trace(everything)) / size, np.finfo(float).tiny)
        shared = self.unseen_weight * everything + pull * np.eye(size)
        found = []
        for items in histories:
            own = vectors[items]
            seen = (1 - self.unseen_weight) * own.T @ own
            user = np.linalg.solve(shared + seen, own.sum(axis=0))
            found.append(-float(np.mean((1 - own @ user) ** 2)))
        return np.array(found)


def _claims(
    data: Prepared, participated: NDArray[np.int64]
) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
    """Histories of members, who trained, and of strangers, who did not; and who is a member."""
    train, *held_out = (data.part(part) for part in Part)
    asked = np.repeat(participated > 0, np.diff(data.client_offsets))
    histories, member = [], []
    for user in range(data.num_users):
        trained = train.slice(user, user + 1).item
        claimed = np.concatenate([part.slice(user, user + 1).item for part in held_out])
        if (asked[user] and len(trained)) or (not len(trained) and len(claimed)):
            histories.append(trained if len(trained) else claimed)
            member.append(bool(len(trained)))
    return histories, np.array(member, np.bool_)
