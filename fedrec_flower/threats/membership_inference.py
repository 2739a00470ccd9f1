"""Membership inference: was a user there when the published model was trained?

An attacker who has the shared parameters and a user's history finds the user vector that explains
the history best. Item vectors were fitted to the histories of those who trained, so these are
explained with less error than those of strangers: the *familiarity* of a history.

With `method=shadow` the attacker also trains shadow federations, with the run's own configuration,
on random halves of the users, and compares a user's familiarity with what it is by models trained
with and without that user; see `likelihood`. The attacked run gives nothing but its result.

An attack shows that a model tells at least so much: every figure is a lower bound of the leak.

Sources: Yeom et al. 2018, "Privacy risk in machine learning", section 3, for telling members by
their loss; Carlini et al. 2022 for shadow models; Hu, Koren and Volinsky 2008, equation 4, for
folding in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns, Prepared
from fedrec_flower.threats.base import NoAttack
from fedrec_flower.threats.leakage_metrics import auc, auc_error, by_item
from fedrec_flower.threats.likelihood import Flags, calibrated, halves
from fedrec_flower.threats.observation import Circumstances, Claims, Scene, Seen

Floats = NDArray[np.float64]

_FEWEST = 2  # of each kind, or there is no error to tell
_FEWEST_SHADOWS = 4  # two with each user and two without, or there is no variance


@dataclass(frozen=True)
class MembershipInference(NoAttack):
    """`attack=membership_inference`: what the shared parameters tell of who was there.

    Members are users who trained, non-members those whose whole history is held out.

    Attributes:
        method: "familiarity": the published model alone; "shadow": calibrated by shadow
            federations, which is stronger and costs `num_shadows` federations like the run's own.
        num_shadows: how many shadow federations are trained, an even number; unused by
            "familiarity".
        unseen_weight: weight of the items outside a history, against 1 for those in it.
        ridge: L2 pull on a user's vector, as a share of the mean squared length of a column of
            the table of item vectors.

    Raises:
        ConfigError: if a value is impossible.
    """

    method: Literal["familiarity", "shadow"]
    num_shadows: int
    unseen_weight: float
    ridge: float

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require(
            self.num_shadows >= _FEWEST_SHADOWS and self.num_shadows % 2 == 0,
            f"attack.num_shadows must be an even number from {_FEWEST_SHADOWS}: {self.num_shadows}",
        )
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
            and non-members they are. With shadow federations also their number, the AUC and error
            of each way to score (familiarity, online, offline, centered), and `strongest`, the way
            with the highest AUC, whose figures the first three are: as it is chosen on the same
            users, where no way finds anything it exceeds 0.5 by about a standard error.
        """
        claims, num_items = claimed(scene.data), scene.data.num_items
        membership = _membership(scene.data, claims, scene.participated)
        targets = np.flatnonzero(membership >= 0)
        member = membership[targets] == 1
        counts: dict[str, Any] = {
            "num_members": int(member.sum()),
            "num_strangers": int((~member).sum()),
        }
        if min(counts.values()) < _FEWEST:
            return counts
        scores = {"familiarity": self._scores(scene.shared, num_items, claims, targets)}
        if self.method == "shadow":
            scores |= self._by_shadows(scene, claims, targets, scores["familiarity"])
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

    def said(self, figures: Mapping[str, Any]) -> str:
        """See `NoAttack.said`."""
        if "auc" not in figures:
            return "membership inference found too few members or strangers to compare"
        how = ""
        if "strongest" in figures:
            plain = figures["familiarity/auc"]
            how = f" ({figures['strongest']}, {figures['num_shadows']} shadow federations"
            how += f"; without them {plain:.3f})"
        return (
            f"membership inference from the published model: AUC {figures['auc']:.3f} ± "
            f"{figures['auc_se']:.3f}{how} over {figures['num_members']} users who trained and "
            f"{figures['num_strangers']} who did not; a lower bound of what the model tells"
        )

    def _by_shadows(
        self, scene: Scene, claims: Claims, targets: NDArray[np.int64], score: Floats
    ) -> dict[str, Floats]:
        """Scores of the targets, calibrated by shadow federations; see `calibrated`."""
        data, found, trained = scene.data, [], []
        for number in range(self.num_shadows):
            shadow = scene.shadow(number, claims, halves(number, data.num_users))
            found.append(self._scores(shadow.shared, data.num_items, claims, targets))
            trained.append(shadow.trained[targets])
        return calibrated(score, np.stack(found), np.stack(trained))

    def _scores(
        self, shared: Seen, num_items: int, claims: Claims, targets: NDArray[np.int64]
    ) -> Floats:
        """float64 (num_targets,): the familiarity of each target's history, spread out."""
        histories = [claims.slice(user, user + 1).item for user in targets.tolist()]
        vectors = np.concatenate(by_item(shared, num_items), axis=1)
        # The logarithm of the error is nearer to a normal distribution than the error itself.
        error = np.maximum(-self.familiarity(vectors, histories), np.finfo(float).tiny)
        score: Floats = -np.log(error)
        return score

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


def claimed(data: Prepared) -> Claims:
    """The history of each user that an attacker has: what it trained on, or all that is held out.

    Args:
        data: the prepared data.
    """
    train, *held_out = (data.part(part) for part in Part)
    trains = np.diff(train.offsets) > 0
    claims = train
    for part in held_out:
        claims = claims.concat(part.mask(~trains))
    return claims


def _membership(
    data: Prepared, claims: Columns, participated: NDArray[np.int64]
) -> NDArray[np.int8]:
    """int8 (num_users,): 1 for members, who trained, 0 for strangers, -1 for all others."""
    trains = np.diff(data.part(Part.TRAIN).offsets) > 0
    asked: Flags = np.repeat(participated > 0, np.diff(data.client_offsets))
    stranger = ~trains & (np.diff(claims.offsets) > 0)
    return np.where(trains & asked, 1, np.where(stranger, 0, -1)).astype(np.int8)


def _figures(score: Floats, member: Flags) -> dict[str, float]:
    """How well a score tells members from strangers; one that is missing is as any other's."""
    known = np.where(np.isnan(score), np.nanmedian(score), score)
    ours, others = known[member], known[~member]
    area = auc(ours, others)
    return {"auc": area, "auc_se": auc_error(ours, others), "advantage": 2 * area - 1}
