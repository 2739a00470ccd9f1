"""Interaction inference: infers a client's items from the values that leave its device.

The attacker is an honest-but-curious server. After the run, one of its rounds, or one more, is
replayed and observed at every place where an attacker may be: one client's message ("update"), the
sum over the cohort ("sum"), that sum with the server's noise ("release"), and all sums or releases
up to this round ("sums", "releases").

Every applicable method is used on each view. The reported values of a view are those of the method
with the highest AUC. All values are lower bounds of the leakage: a better attack may infer more.

Sources: Chai et al. 2021, "Secure federated matrix factorization", for ratings inferred from
gradients; Yuan et al. 2023, "Interaction-level membership inference attack against federated
recommender systems", for the inference task; and the sources of the methods.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Float64Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.threats.base import InferenceAttack
from fedrec_flower.threats.leakage_metrics import (
    Matching,
    Pairs,
    auc,
    inferred_items,
    leakage_scores,
)
from fedrec_flower.threats.least_squares import LeastSquares
from fedrec_flower.threats.multi_round import regression_scores, separate_sums, separation_scores
from fedrec_flower.threats.observation import (
    AttackedRound,
    AttackedRun,
    AttackTarget,
    Exposure,
    ObservedSum,
    TargetRound,
)

Method = Literal["reading", "least_squares", "regression", "separation", "strongest"]

_HEADLINE = ("auc", "auc_se", "precision", "recall", "method")
_FIGURES = ("auc", "auc_all_items", "precision", "recall")
_PAIRS_EACH_SIDE = 5  # more popular and less popular items that each item is compared with
_NUM_REFINEMENTS = 3  # of least squares


@dataclass(frozen=True, slots=True)
class Victim:
    """A client and the ground truth about it.

    Attributes:
        client: code of the client.
        own: int64 (m,), its items in training.
        others: int64 (n,), items that it never had; its held-out items are in neither set.
        pairs: comparisons of its items with equally popular other items.
    """

    client: int
    own: IndexArray
    others: IndexArray
    pairs: Pairs


@dataclass(frozen=True)
class InteractionInference(InferenceAttack):
    """`attack=interaction_inference`: infers a client's items from messages, sums and releases.

    Attributes:
        method: the attack method. "reading": the direction in which rows changed.
            "least_squares": solves a sum as a linear system; requires clients whose draws are
            derived from the seed. "regression" and "separation": use the sums of many rounds.
            "strongest": every applicable method.
        round: the attacked round, or "last" for one more after the last round.
        side_knowledge: additional knowledge of the server. "activities": each client's number of
            items in training.
        num_victims: the largest number of attacked clients of the cohort.
        seed: the experiment's seed.

    Raises:
        ConfigError: if a value is impossible.
    """

    method: Method
    round: AttackedRound
    side_knowledge: Literal["none", "activities"]
    num_victims: int
    seed: int

    def __post_init__(self) -> None:
        """Validate the values."""
        require(self.num_victims >= 1, f"attack.num_victims must be 1 or more: {self.num_victims}")
        require(
            self.round == "last" or self.round >= 1,
            f"attack.round must be 1 or more, or last: {self.round}",
        )

    @override
    def check(self, run: AttackedRun) -> None:
        fix = "choose another strategy, or attack=none"
        require(
            run.shares and run.num_clients > 1,
            "attack=interaction_inference needs the messages of clients, and "
            f"{run.strategy} with {run.num_clients} clients has none to attack: {fix}",
        )
        require(
            run.one_model,
            f"{run.strategy} gives clients more than the shared parameters, and "
            f"attack=interaction_inference replays a round from these only: {fix}",
        )
        require(
            run.by_item,
            f"messages of clients with model={run.model} have no values for single items, so "
            "attack=interaction_inference has nothing to infer from: choose another model, or "
            "attack=none",
        )
        require(
            self.round == "last" or self.round <= run.num_rounds,
            f"attack.round={self.round} is after the last of num_rounds={run.num_rounds}: lower it",
        )
        require(
            self.round in ("last", 1) or run.replayable,
            f"attack.round={self.round} replays the rounds before it, which requires faults=none "
            f"and a strategy that uses one sum per round, unlike {run.strategy}: choose 1 or last",
        )
        require(
            self.round != 1 or self.method not in ("regression", "separation"),
            f"attack.method={self.method} compares the sums of several rounds: set attack.round=2 "
            "or above, or last",
        )
        if self.method in ("reading", "strongest"):
            return
        require(
            run.factors and run.ranks,
            f"attack.method={self.method} solves for clients' vectors, but model={run.model} does "
            "not multiply them with shared item vectors, or a client holds several users, or task "
            "is not ranking: choose model=mf with partition=user, or attack.method=reading",
        )
        require(
            self.method != "least_squares" or run.seeded,
            "attack.method=least_squares requires the clients' draws, and with randomness=private "
            "they come from a secret: choose randomness=seeded, or attack.method=strongest",
        )
        require(
            run.replayable,
            f"attack.method={self.method} replays the run, which requires faults=none and a "
            f"strategy that uses one sum per round, unlike {run.strategy}: choose "
            "attack.method=reading",
        )

    def infer(self, target: AttackTarget) -> dict[str, Any]:
        """Attack one round.

        Args:
            target: the finished run.

        Returns:
            For each attacked view, means over victims as "view/metric": auc among equally popular
            items (see `matching`), its standard error auc_se, auc_all_items, precision and recall,
            all of the `method` with the highest AUC; and auc and auc_se of each method, as
            "view/method/auc". For sums also auc_without: the AUC of "reading" on the sum without
            the victim; the difference is due to the victim's participation. For separated sums also
            auc_anonymous: the AUC if each victim is assigned the source that fits it best, as with
            knowledge of the owners, and auc_anonymous_chance, the same for random sources. For the
            view that an attacker can observe under the mechanism in force ("exposed"): auc, auc_se,
            advantage (2 auc - 1), precision, recall and method. Also num_victims, and the AUC of
            public knowledge: auc_of_popularity, among all items, and auc_of_counts, of exact
            counts in the cohort, the same scores for all its clients.
        """
        solves = self.method != "reading" and target.factors is not None
        with target.replay_round(self.round, with_history=solves) as played:
            scores = _VictimScores(self._victims(target.data, played.cohort), target.data.num_items)
            messages = scores.messages(played)
            if not messages:  # the cohort is empty, or has no client with items to infer
                return {"exposed": played.exposed, "num_victims": 0}
            scores.read_messages(messages)
            if self._uses("reading"):
                scores.read_sums(played, messages)
            anonymous = self._solve(target, played, scores) if solves else {}
            figures = scores.figures() | anonymous
            exposed = _exposed(played.exposed, figures)
            return {
                **_headline(exposed, figures),
                "exposed": exposed,
                "num_victims": len(scores.victims),
                **_public_knowledge(target.data, played.cohort, scores.victims),
                **figures,
            }

    def _solve(
        self, target: AttackTarget, played: TargetRound, scores: "_VictimScores"
    ) -> dict[str, float]:
        """Attack sums and releases by the methods that solve for clients' vectors.

        Returns:
            The AUC of anonymous sources, by "view/metric".
        """
        factors = target.factors
        if factors is None:
            return {}
        views = {"sum": [*played.earlier, played.whole]}
        if played.released is not None:
            views["release"] = [*played.earlier_released, played.released]
        activities = target.data.num_examples if self.side_knowledge == "activities" else None
        clients = np.array([victim.client for victim in scores.victims])
        num_clients = target.data.num_clients
        anonymous: dict[str, float] = {}
        for view, sums in views.items():
            if self._uses("least_squares"):
                self._least_squares(target, view, sums, scores, activities)
            if len(sums) > 1 and self._uses("regression"):
                score = regression_scores(sums, factors, clients, activities, num_clients)
                scores.add(f"{view}s", "regression", score, _top(sums))
            if self._uses("separation"):
                rng = generator(self.seed, "attack-separation")
                rounds = separate_sums(sums, factors, rng)
                if len(rounds) > 1:
                    score = separation_scores(rounds, clients, num_clients)
                    scores.add(f"{view}s", "separation", score, _top(sums))
                sources = rounds[-1].sources.T
                anonymous[f"{view}/auc_anonymous"] = scores.auc_of_best(sources)
                random_sources = rng.normal(size=sources.shape)
                anonymous[f"{view}/auc_anonymous_chance"] = scores.auc_of_best(random_sources)
        return anonymous

    def _least_squares(
        self,
        target: AttackTarget,
        view: str,
        sums: Sequence[ObservedSum],
        scores: "_VictimScores",
        activities: IndexArray | None,
    ) -> None:
        """Attack a sum and the sums before it by least squares, if clients can be simulated."""
        factors = target.factors
        with target.simulator() as simulator:
            if simulator is None or factors is None:
                return
            num_items = target.data.num_items
            attack = LeastSquares(simulator, factors, num_items, _NUM_REFINEMENTS, activities)
            for earlier in sums[:-1]:
                attack.read(earlier)
            score = attack.read(sums[-1])
        clients = np.array([victim.client for victim in scores.victims])
        places = np.searchsorted(sums[-1].cohort, clients)
        scores.add(view, "least_squares", score[places], _above_half)

    def _uses(self, method: Method) -> bool:
        return self.method in (method, "strongest")

    @override
    def describe(self, figures: Mapping[str, Any]) -> str:
        if not figures["num_victims"]:
            return "interaction inference: the cohort has no client to attack"
        if "auc" not in figures:
            return (
                f"interaction inference by {self.method} does not apply to the values that the "
                "mechanism in force exposes"
            )
        views = {
            "update": "one client's message",
            "sum": "the sum over a cohort",
            "release": "the released sum over a cohort",
            "sums": "the sums over the cohorts of all rounds",
            "releases": "the released sums over the cohorts of all rounds",
        }
        return (
            f"interaction inference from {views[figures['exposed']]} by {figures['method']}: "
            f"AUC {figures['auc']:.3f} ± {figures['auc_se']:.3f} among equally popular items, "
            f"precision {figures['precision']:.2f}, recall {figures['recall']:.2f}"
        )

    def _victims(self, data: Prepared, cohort: IndexArray) -> list[Victim]:
        """Clients of the cohort with items to infer, sampled by the seed."""
        matching = Matching(_counts(data), generator(self.seed, "attack-matching"))
        order = generator(self.seed, "attack-victims").permutation(cohort)
        victims = (_victim(data, matching, client) for client in order.tolist())
        with_items = (victim for victim in victims if len(victim.pairs.own))
        return list(islice(with_items, self.num_victims))


def _victim(data: Prepared, matching: Matching, client: int) -> Victim:
    client_data = data.client(client)
    own = np.unique(client_data.train.item).astype(np.int64)
    is_other = np.ones(data.num_items, np.bool_)
    for part in (client_data.train, client_data.validation, client_data.test):
        is_other[part.item] = False
    others = np.flatnonzero(is_other)
    return Victim(client, own, others, matching.pairs(own, others, _PAIRS_EACH_SIDE))


def _counts(data: Prepared) -> IndexArray:
    """int64 (num_items,): number of training interactions of each item."""
    return np.bincount(data.part(Part.TRAIN).item, minlength=data.num_items)


class _VictimScores:
    """Evaluates the scores of each method on each view against the ground truth.

    Attributes:
        victims: the attacked clients; `messages` removes those without a message.
    """

    def __init__(self, victims: Sequence[Victim], num_items: int) -> None:
        self.victims = list(victims)
        self._num_items = num_items
        self._rows: dict[tuple[str, str], Float64Array] = {}  # view, method -> (victims, metrics)
        self._without: dict[str, Float64Array] = {}

    def messages(self, played: TargetRound) -> list[Mapping[str, Float64Array]]:
        """The victims' messages; a client without a message is no longer a victim."""
        messages = [(victim, played.message(victim.client)) for victim in self.victims]
        self.victims = [victim for victim, message in messages if message is not None]
        return [message for _, message in messages if message is not None]

    def read_messages(self, messages: Sequence[Mapping[str, Float64Array]]) -> None:
        """Attack single messages by "reading"."""
        pairs = zip(messages, self.victims, strict=True)
        rows = [self._readings(message, [victim]) for message, victim in pairs]
        self._keep_better("update", np.concatenate(rows, axis=1))

    def read_sums(
        self, played: TargetRound, messages: Sequence[Mapping[str, Float64Array]]
    ) -> None:
        """Attack the sum and the release by "reading", with and without each victim."""
        views = {"sum": played.whole.seen}
        if played.released is not None:
            views["release"] = played.released.seen
        for view, seen in views.items():
            best = self._keep_better(view, self._readings(seen, self.victims))
            without = [
                self._readings({n: value - message[n] for n, value in seen.items()}, [victim])
                for message, victim in zip(messages, self.victims, strict=True)
            ]
            self._without[view] = np.concatenate(without, axis=1)[best]

    def add(
        self,
        view: str,
        method: str,
        scores: Float64Array,
        inferred_items: Callable[[Float64Array], IndexArray],
    ) -> None:
        """Evaluate a method's scores on a view.

        Args:
            view: the view.
            method: the method.
            scores: float64 (victims, num_items).
            inferred_items: returns the items that the method infers from the scores of one victim.
        """
        self._rows[view, method] = np.array(
            [_metrics(s, inferred_items(s), v) for s, v in zip(scores, self.victims, strict=True)]
        )

    def auc_of_best(self, sources: Float64Array) -> float:
        """The mean AUC if each victim is assigned one source, such that the mean is highest.

        Args:
            sources: float64 (k, num_items), with either sign.
        """
        from scipy.optimize import linear_sum_assignment  # here: few runs are attacked

        areas = np.array([[v.pairs.auc(source) for source in sources] for v in self.victims])
        areas = np.maximum(areas, 1 - areas)
        row, column = linear_sum_assignment(-areas)
        return float(areas[row, column].mean())

    def figures(self) -> dict[str, Any]:
        """The metrics of every attacked view, as "view/metric"."""
        figures: dict[str, Any] = {}
        for view in dict.fromkeys(view for view, _ in self._rows):
            methods = {m: rows for (v, m), rows in self._rows.items() if v == view}
            best = max(methods, key=lambda method: float(methods[method][:, 0].mean()))
            means = methods[best].mean(axis=0).tolist()
            figures[f"{view}/method"] = best
            figures |= {f"{view}/{n}": m for n, m in zip(_FIGURES, means, strict=True)}
            figures[f"{view}/auc_se"] = _standard_error(methods[best][:, 0])
            if view in self._without:
                figures[f"{view}/auc_without"] = float(self._without[view][:, 0].mean())
            for method, rows in methods.items():
                figures[f"{view}/{method}/auc"] = float(rows.mean(axis=0)[0])
                figures[f"{view}/{method}/auc_se"] = _standard_error(rows[:, 0])
        return figures

    def _readings(
        self, seen: Mapping[str, Float64Array], victims: Sequence[Victim]
    ) -> Float64Array:
        """The metrics of the two scores of "reading": float64 (2, victims, metrics)."""
        scores = leakage_scores(seen, self._num_items)
        guessed = inferred_items(scores)
        return np.array(
            [[_metrics(score, guessed, victim) for victim in victims] for score in scores]
        )

    def _keep_better(self, view: str, rows: Float64Array) -> int:
        """Store the metrics of the score with the higher mean AUC, and return its index."""
        best = int(rows[:, :, 0].mean(axis=1).argmax())
        self._rows[view, "reading"] = rows[best]
        return best


def _metrics(score: Float64Array, guessed: IndexArray, victim: Victim) -> list[float]:
    """auc, auc_all_items, precision and recall of a score and of the guessed items."""
    hits = len(np.intersect1d(guessed, victim.own))
    auc_all_items = auc(score[victim.own], score[victim.others])
    precision = hits / max(len(guessed), 1)
    return [victim.pairs.auc(score), auc_all_items, precision, hits / len(victim.own)]


def _standard_error(values: Float64Array) -> float:
    return float(values.std(ddof=min(1, len(values) - 1)) / np.sqrt(len(values)))


def _above_half(score: Float64Array) -> IndexArray:
    """The items that least squares infers: those whose score is nearer to 1 than to 0."""
    return np.flatnonzero(score > 0.5)  # noqa: PLR2004


def _top(sums: Sequence[ObservedSum]) -> Callable[[Float64Array], IndexArray]:
    """Returns as many best items as a client has on average, according to the weights."""
    weight = sum(each.weight for each in sums) / max(sum(len(each.cohort) for each in sums), 1)
    count = max(round(weight), 1)
    return lambda score: np.argsort(-score, kind="stable")[:count].astype(np.int64)


def _exposed(view: Exposure, figures: Mapping[str, Any]) -> str:
    """The exposed view: one sum or the sums of all rounds, whichever has the higher AUC.

    It is never a view that the mechanism hides, even if no method applies to the exposed one.
    """
    attacked = [each for each in (view, f"{view}s") if f"{each}/auc" in figures]
    return max(attacked, key=lambda each: float(figures[f"{each}/auc"]), default=view)


def _headline(exposed: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of the exposed view; empty if no method applies to it."""
    if f"{exposed}/auc" not in figures:
        return {}
    headline = {name: figures[f"{exposed}/{name}"] for name in _HEADLINE}
    return {**headline, "advantage": 2 * headline["auc"] - 1}


def _public_knowledge(
    data: Prepared, cohort: IndexArray, victims: Sequence[Victim]
) -> dict[str, float]:
    """The AUC of item popularity, and of the number of the cohort's interactions with an item."""
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
