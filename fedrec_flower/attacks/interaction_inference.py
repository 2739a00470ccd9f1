"""Interaction inference: which items does a client have, judging by what leaves its device?

An honest but curious server keeps to the protocol and looks closely. When the run is over, one
more round is played as the run would have played it, and read at each place where somebody could
stand: one client's message, the sum over the cohort, and that sum with the server's noise.

Sources: Chai et al. 2021, "Secure federated matrix factorization", for ratings that gradients tell;
Yuan et al. 2023, "Interaction-level membership inference attack against federated
recommender systems", for the question asked here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.attacks.matching import Matching, Pairs, auc
from fedrec_flower.attacks.none import NoAttack
from fedrec_flower.attacks.reading import guess, readings
from fedrec_flower.attacks.scene import Circumstances, Moment, Round, Scene
from fedrec_flower.errors import require
from fedrec_flower.interactions import Part
from fedrec_flower.prepared import Prepared
from fedrec_flower.seeding import generator

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_HEADLINE = ("auc", "auc_se", "precision", "recall")
_EACH_SIDE = 5  # items a little more popular, and as many a little less, beside each of a client's


@dataclass(frozen=True, slots=True)
class Victim:
    """A client and the truth about it.

    Attributes:
        client: its code.
        own: int64 (m,), its items in training.
        others: int64 (n,), items that it never had; what is held out of it stands in neither.
        pairs: its items beside equally popular others.
    """

    client: int
    own: Codes
    others: Codes
    pairs: Pairs


@dataclass(frozen=True)
class InteractionInference(NoAttack):
    """`attack=interaction_inference`: what a message, a sum and a release tell of one client.

    Attributes:
        at: "initial" plays a round from the initial parameters, "final" from the published ones.
        num_victims: how many clients of the cohort are looked at, at most.
        seed: the experiment's seed.

    Raises:
        ConfigError: if there is no victim.
    """

    at: Moment
    num_victims: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require(self.num_victims >= 1, f"attack.num_victims must be 1 or more: {self.num_victims}")

    def check(self, run: Circumstances) -> None:
        """See `NoAttack.check`."""
        mend = "choose another strategy, or attack=none"
        require(
            run.shares and run.num_clients > 1,
            f"attack=interaction_inference reads what clients send, and with {run.strategy} of "
            f"{run.num_clients} clients there is nothing to read: {mend}",
        )
        require(
            run.one_model,
            f"{run.strategy} gives clients more than the shared parameters, and "
            f"attack=interaction_inference plays a round from these alone: {mend}",
        )
        require(
            run.by_item,
            f"what clients of model={run.model} send tells no item from another, so "
            "attack=interaction_inference has nothing to read: choose another model, or "
            "attack=none",
        )

    def spied(self, scene: Scene) -> dict[str, Any]:
        """What was found out.

        Args:
            scene: the run that is over.

        Returns:
            For each view ("update", "sum", "release") means over victims, as "view/figure": auc
            among equally popular items (see `matching`) and its standard error, auc_all_items,
            precision and recall of `reading.guess`; for sums also auc_without, the same reading
            had the client stayed away, so that the difference is what taking part tells. Of the
            two ways of reading, each view has the one that tells more. Beside them, for the view
            that the mechanism in force leaves ("exposed"), auc, auc_se, advantage (2 auc - 1),
            precision and recall; how many victims; and what is known without looking:
            auc_of_popularity, among all items, and auc_of_counts, of exact counts in the cohort.
        """
        with scene.another_round(self.at) as played:
            victims = self._victims(scene.data, played.cohort)
            figures = _views(played, victims, scene.data.num_items)
            if not figures:  # nobody was asked, or nobody has anything to hide
                return {"exposed": played.exposed, "num_victims": 0}
            headline = {name: figures[f"{played.exposed}/{name}"] for name in _HEADLINE}
            return {
                **headline,
                "advantage": 2 * headline["auc"] - 1,
                "exposed": played.exposed,
                **_known(scene.data, played.cohort, victims),
                **figures,
            }

    def said(self, figures: Mapping[str, Any]) -> str:
        """See `NoAttack.said`."""
        if "auc" not in figures:
            return "interaction inference found nobody to look at"
        views = {
            "update": "one client's message",
            "sum": "the sum over a cohort",
            "release": "what is released of the sum",
        }
        return (
            f"interaction inference from {views[figures['exposed']]}: "
            f"AUC {figures['auc']:.3f} ± {figures['auc_se']:.3f} among equally popular items, "
            f"precision {figures['precision']:.2f}, recall {figures['recall']:.2f}"
        )

    def _victims(self, data: Prepared, cohort: Codes) -> list[Victim]:
        """Some of the cohort, drawn by the seed, of whom there is something to find out."""
        matching = Matching(_counts(data), generator(self.seed, "attack-matching"))
        drawn = generator(self.seed, "attack-victims").permutation(cohort)
        found = (_victim(data, matching, client) for client in drawn.tolist())
        exposed = (victim for victim in found if len(victim.pairs.own))
        return list(islice(exposed, self.num_victims))


def _victim(data: Prepared, matching: Matching, client: int) -> Victim:
    held = data.client(client)
    own = np.unique(held.train.item).astype(np.int64)
    never = np.ones(data.num_items, np.bool_)
    for part in (held.train, held.validation, held.test):
        never[part.item] = False
    others = np.flatnonzero(never)
    return Victim(client, own, others, matching.pairs(own, others, _EACH_SIDE))


def _counts(data: Prepared) -> Codes:
    """int64 (num_items,): how often each item occurs in training."""
    return np.bincount(data.part(Part.TRAIN).item, minlength=data.num_items)


def _views(played: Round, victims: Sequence[Victim], num_items: int) -> dict[str, float]:
    """The figures of every view there is, as "view/figure"."""
    total = played.total()
    released = played.released(total)
    sums = {"sum": total} if released is None else {"sum": total, "release": released}
    whole = {view: readings(seen, num_items) for view, seen in sums.items()}
    told: dict[str, list[Floats]] = {view: [] for view in ("update", *sums)}
    without: dict[str, list[Floats]] = {view: [] for view in sums}
    for victim in victims:
        message = played.message(victim.client)
        if message is None:
            continue
        told["update"].append(_told(readings(message, num_items), victim))
        for view, seen in sums.items():
            told[view].append(_told(whole[view], victim))
            left = {name: value - message[name] for name, value in seen.items()}
            without[view].append(_told(readings(left, num_items), victim))
    if not told["update"]:
        return {}
    found = {"num_victims": float(len(told["update"]))}
    for view, rows in told.items():
        figures = _figures(rows, without.get(view, []))
        found |= {f"{view}/{name}": value for name, value in figures.items()}
    return found


def _told(scores: Floats, victim: Victim) -> Floats:
    """float64 (2, 4): of each reading auc, auc_all_items, precision and recall."""
    named = guess(scores)
    hits = len(np.intersect1d(named, victim.own, assume_unique=True))
    found = [hits / max(len(named), 1), hits / len(victim.own)]
    return np.array(
        [
            [victim.pairs.auc(score), auc(score[victim.own], score[victim.others]), *found]
            for score in scores
        ]
    )


def _figures(rows: Sequence[Floats], without: Sequence[Floats]) -> dict[str, float]:
    """Means over victims of the reading that tells most."""
    each = np.stack(rows)
    best = int(each[:, :, 0].mean(axis=0).argmax())
    names = ("auc", "auc_all_items", "precision", "recall")
    means = dict(zip(names, each[:, best].mean(axis=0).tolist(), strict=True))
    error = float(each[:, best, 0].std(ddof=min(1, len(each) - 1)) / np.sqrt(len(each)))
    away = {"auc_without": float(np.stack(without)[:, best, 0].mean())} if without else {}
    return means | {"auc_se": error} | away


def _known(data: Prepared, cohort: Codes, victims: Sequence[Victim]) -> dict[str, float]:
    """What popularity tells, and what the number of each item's clients in the cohort would."""
    popularity = _counts(data).astype(np.float64)
    counts = np.zeros(data.num_items)
    for client in cohort.tolist():
        counts += np.bincount(data.client(client).train.item, minlength=data.num_items)
    return {
        "auc_of_popularity": _mean(
            auc(popularity[victim.own], popularity[victim.others]) for victim in victims
        ),
        "auc_of_counts": _mean(victim.pairs.auc(counts) for victim in victims),
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
