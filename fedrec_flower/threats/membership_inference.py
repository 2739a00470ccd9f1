"""Membership inference: infers from the published model whether a user was in the training data.

An attacker with the shared parameters and a user's history fits the user vector that explains the
history best. Item vectors were fitted to the histories of the members, so the error is smaller for
members than for non-members. The *familiarity* of a history is minus this error.

With `method=shadow` the attacker also trains shadow federations, with the run's own configuration,
on random halves of the users. A user's familiarity is compared with its familiarity under models
trained with and without that user; see `likelihood`. Only the result of the attacked run is used.

Every value is a lower bound of the leakage: a stronger attack may infer more.

Sources: Yeom et al. 2018, "Privacy risk in machine learning", section 3, for inference from the
loss; Carlini et al. 2022 for shadow models; Hu, Koren and Volinsky 2008, equation 4, for folding
in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import BoolArray, Float64Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns, Prepared
from fedrec_flower.threats.base import InferenceAttack
from fedrec_flower.threats.leakage_metrics import auc, auc_error, by_item
from fedrec_flower.threats.likelihood import calibrated, halves
from fedrec_flower.threats.observation import AttackedRun, AttackTarget, KnownHistories, Observation

_MIN_USERS = 2  # members, and non-members, for a standard error
_MIN_SHADOWS = 4  # two with each user and two without, for a variance


@dataclass(frozen=True)
class MembershipInference(InferenceAttack):
    """`attack=membership_inference`: infers from the shared parameters which users trained.

    Members are users that trained; non-members are users whose whole history is held out.

    Attributes:
        method: "familiarity" uses only the published model; "shadow" is calibrated by shadow
            federations, which is stronger and costs as much as `num_shadows` runs.
        num_shadows: number of shadow federations, even; not used by "familiarity".
        unseen_weight: weight of the items outside a history, relative to 1 for those in it.
        ridge: L2 regularisation of a user's vector / mean squared norm of a column of the table of
            item vectors.

    Raises:
        ConfigError: if a value is impossible.
    """

    method: Literal["familiarity", "shadow"]
    num_shadows: int
    unseen_weight: float
    ridge: float

    def __post_init__(self) -> None:
        """Validate the values."""
        require(
            self.num_shadows >= _MIN_SHADOWS and self.num_shadows % 2 == 0,
            f"attack.num_shadows must be an even number from {_MIN_SHADOWS}: {self.num_shadows}",
        )
        require(
            0 <= self.unseen_weight <= 1,
            f"attack.unseen_weight must be from 0 to 1: {self.unseen_weight}",
        )
        require(self.ridge > 0, f"attack.ridge must be above 0: {self.ridge}")

    @override
    def check(self, run: AttackedRun) -> None:
        require(
            run.shares and run.vectors,
            f"attack=membership_inference needs trained item vectors, and model={run.model} with "
            f"{run.strategy} publishes none: choose model=mf, or attack=none",
        )
        require(
            run.num_strangers >= _MIN_USERS,
            f"attack=membership_inference needs {_MIN_USERS} or more users who never trained, and "
            f"there are {run.num_strangers}: choose split=cold_users",
        )

    def infer(self, target: AttackTarget) -> dict[str, Any]:
        """Infer the membership of users.

        Args:
            target: the finished run.

        Returns:
            auc over users, its standard error auc_se, advantage (2 auc - 1), and the numbers of
            members and non-members. With shadow federations also their number, auc and auc_se of
            each score (familiarity, online, offline, centered), and `strongest`, the score with the
            highest AUC, to which the first three values belong. It is chosen on the same users, so
            its AUC exceeds 0.5 by about a standard error even if no score separates the users.
        """
        claims, num_items = claimed(target.data), target.data.num_items
        membership = _membership(target.data, claims, target.participated)
        targets = np.flatnonzero(membership >= 0)
        member = membership[targets] == 1
        counts: dict[str, Any] = {
            "num_members": int(member.sum()),
            "num_strangers": int((~member).sum()),
        }
        if min(counts.values()) < _MIN_USERS:
            return counts
        scores = {"familiarity": self._scores(target.shared, num_items, claims, targets)}
        if self.method == "shadow":
            scores |= self._by_shadows(target, claims, targets, scores["familiarity"])
        each = {way: _figures(score, member) for way, score in scores.items()}
        if self.method == "familiarity":
            return {**each["familiarity"], **counts}
        strongest = max(each, key=lambda way: each[way]["auc"])
        more = {f"{way}/{name}": each[way][name] for way in each for name in ("auc", "auc_se")}
        return {
            **each[strongest],
            "strongest": strongest,
            "num_shadows": self.num_shadows,
            **more,
            **counts,
        }

    @override
    def describe(self, figures: Mapping[str, Any]) -> str:
        if "auc" not in figures:
            return "membership inference: too few members or non-members to compare"
        method = ""
        if "strongest" in figures:
            method = (
                f" ({figures['strongest']}, {figures['num_shadows']} shadow federations; without "
                f"them {figures['familiarity/auc']:.3f})"
            )
        return (
            f"membership inference from the published model: AUC {figures['auc']:.3f} ± "
            f"{figures['auc_se']:.3f}{method} over {figures['num_members']} users who trained and "
            f"{figures['num_strangers']} who did not; a lower bound of the leakage"
        )

    def _by_shadows(
        self,
        target: AttackTarget,
        claims: KnownHistories,
        targets: IndexArray,
        score: Float64Array,
    ) -> dict[str, Float64Array]:
        """Scores of the targets, calibrated by shadow federations; see `calibrated`."""
        data = target.data
        shadow_scores = []
        trained = []
        for number in range(self.num_shadows):
            shadow = target.shadow(number, claims, halves(number, data.num_users))
            shadow_scores.append(self._scores(shadow.shared, data.num_items, claims, targets))
            trained.append(shadow.trained[targets])
        return calibrated(score, np.stack(shadow_scores), np.stack(trained))

    def _scores(
        self,
        shared: Observation,
        num_items: int,
        claims: KnownHistories,
        targets: IndexArray,
    ) -> Float64Array:
        """float64 (num_targets,): minus the logarithm of the error of each target's history."""
        histories = [claims.slice(user, user + 1).item for user in targets.tolist()]
        vectors = np.concatenate(by_item(shared, num_items), axis=1)
        # The logarithm of the error is closer to a normal distribution than the error.
        error = np.maximum(-self.familiarity(vectors, histories), np.finfo(float).tiny)
        score: Float64Array = -np.log(error)
        return score

    def familiarity(
        self, vectors: Float64Array, histories: list[NDArray[np.int32]]
    ) -> Float64Array:
        """The familiarity of each history.

        Args:
            vectors: float64 (num_items, d), item vectors.
            histories: item codes of each user, at least one.

        Returns:
            float64 (num_users,): minus the mean squared error of predicting 1 for the items of the
            history. The user vector minimises the squared errors of these items plus the weighted
            squared scores of all other items.
        """
        gram = vectors.T @ vectors
        size = vectors.shape[1]
        ridge = self.ridge * max(float(np.trace(gram)) / size, np.finfo(float).tiny)
        shared = self.unseen_weight * gram + ridge * np.eye(size)
        familiarities = []
        for items in histories:
            rows = vectors[items]
            by_history = (1 - self.unseen_weight) * rows.T @ rows
            user = np.linalg.solve(shared + by_history, rows.sum(axis=0))
            familiarities.append(-float(np.mean((1 - rows @ user) ** 2)))
        return np.array(familiarities)


def claimed(data: Prepared) -> KnownHistories:
    """The users' histories that an attacker has: training items, or all held-out items if none.

    Args:
        data: the prepared data.
    """
    train, *held_out = (data.part(part) for part in Part)
    trains = np.diff(train.offsets) > 0
    claims = train
    for part in held_out:
        claims = claims.concat(part.mask(~trains))
    return claims


def _membership(data: Prepared, claims: Columns, participated: IndexArray) -> NDArray[np.int8]:
    """int8 (num_users,): 1 for members, which trained, 0 for non-members, -1 for other users."""
    has_training = np.diff(data.part(Part.TRAIN).offsets) > 0
    sampled: BoolArray = np.repeat(participated > 0, np.diff(data.client_offsets))
    non_member = ~has_training & (np.diff(claims.offsets) > 0)
    return np.where(has_training & sampled, 1, np.where(non_member, 0, -1)).astype(np.int8)


def _figures(score: Float64Array, member: BoolArray) -> dict[str, float]:
    """The AUC of a score that separates members from non-members; NaN becomes the median."""
    filled = np.where(np.isnan(score), np.nanmedian(score), score)
    members = filled[member]
    non_members = filled[~member]
    area = auc(members, non_members)
    return {"auc": area, "auc_se": auc_error(members, non_members), "advantage": 2 * area - 1}
