"""Interaction inference: which items does a client have, judging by what leaves its device?

An honest but curious server keeps to the protocol and looks closely. After the run one of its
rounds, or one more, is played again as the run plays it, and read at each place where somebody
could stand: one client's message ("update"), the sum over the cohort ("sum"), that sum with the
server's noise ("release"), and all sums or releases up to this one ("sums", "releases").

Each view is read by every method that applies to it, and the figure of a view is that of the method
that found most. All figures are lower bounds of what a view leaks: a better attack may find more.

Sources: Chai et al. 2021, "Secure federated matrix factorization", for ratings that gradients tell;
Yuan et al. 2023, "Interaction-level membership inference attack against federated
recommender systems", for the question asked here; and those of the methods.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.threats.base import NoAttack
from fedrec_flower.threats.leakage_metrics import Matching, Pairs, auc, guess, readings
from fedrec_flower.threats.least_squares import LeastSquares
from fedrec_flower.threats.multi_round import regressed, separated, told_apart
from fedrec_flower.threats.observation import Circumstances, Moment, Round, Scene, Sum, View

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Method = Literal["reading", "least_squares", "regression", "separation", "strongest"]

_HEADLINE = ("auc", "auc_se", "precision", "recall", "method")
_FIGURES = ("auc", "auc_all_items", "precision", "recall")
_EACH_SIDE = 5  # items a little more popular, and as many a little less, beside each of a client's
_REFINEMENTS = 3  # of least squares


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
        method: how to read them. "reading": the direction in which rows moved. "least_squares": a
            sum as a linear system; needs clients whose draws follow from the seed. "regression" and
            "separation": the sums of many rounds. "strongest": every method that can be used.
        round: the round that is looked at, or "last": one more after the last round.
        side_knowledge: what the server knows beside its messages. "activities": how many items each
            client has in training.
        num_victims: how many clients of the cohort are looked at, at most.
        seed: the experiment's seed.

    Raises:
        ConfigError: if a value is impossible.
    """

    method: Method
    round: Moment
    side_knowledge: Literal["none", "activities"]
    num_victims: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require(self.num_victims >= 1, f"attack.num_victims must be 1 or more: {self.num_victims}")
        require(
            self.round == "last" or self.round >= 1,
            f"attack.round must be 1 or more, or last: {self.round}",
        )

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
        require(
            self.round == "last" or self.round <= run.num_rounds,
            f"attack.round={self.round} is after the last of num_rounds={run.num_rounds}: lower it",
        )
        require(
            self.round in ("last", 1) or run.replayable,
            f"attack.round={self.round} plays the rounds before it again, which needs faults=none "
            f"and a server that moves by one sum a round, and {run.strategy} does not: choose 1 or "
            "last",
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
            f"attack.method={self.method} solves for clients' vectors, and model={run.model} has "
            "none that it multiplies with item vectors it sends, or a client holds several users, "
            "or task is not ranking: choose model=mf with partition=user, or attack.method=reading",
        )
        require(
            self.method != "least_squares" or run.seeded,
            "attack.method=least_squares needs to know the clients' draws, and with "
            "randomness=private they follow from a secret: choose randomness=seeded, or "
            "attack.method=strongest",
        )
        require(
            run.replayable,
            f"attack.method={self.method} plays the run again, which needs faults=none and a "
            f"server that moves by one sum a round, and {run.strategy} does not: choose "
            "attack.method=reading",
        )

    def spied(self, scene: Scene) -> dict[str, Any]:
        """What was found out.

        Args:
            scene: the run that is over.

        Returns:
            For each view that a method reads means over victims, as "view/figure": auc among
            equally popular items (see `matching`) and its standard error, auc_all_items, precision
            and recall, all of the `method` that found most; and auc and auc_se of each method, as
            "view/method/auc". For sums also auc_without, the same reading had the client stayed
            away, so that the difference is what taking part tells; and, where the sum was
            separated, auc_anonymous: of the source that fits each victim best, as if somebody had
            told whose each is, beside auc_anonymous_chance, the same of random sources. Beside
            them, for the view that the mechanism in force leaves ("exposed"), auc, auc_se,
            advantage (2 auc - 1), precision, recall and method; how many victims; and what is known
            without looking: auc_of_popularity, among all items, and auc_of_counts, of exact counts
            in the cohort, the same for all its clients.
        """
        solves = self.method != "reading" and scene.factors is not None
        with scene.another_round(self.round, remember=solves) as played:
            victims = self._victims(scene.data, played.cohort)
            told, anonymous = _Told(victims, scene.data.num_items), {}
            sent = told.messages(played) if victims else []
            if not sent:  # nobody was asked, or nobody has anything to hide
                return {"exposed": played.exposed, "num_victims": 0}
            told.read_messages(sent)
            if self._uses("reading"):
                told.read_sums(played, sent)
            if solves:
                anonymous = self._solve(scene, played, told)
            figures = told.figures() | anonymous
            exposed = _exposed(played.exposed, figures)
            return {
                **_headline(exposed, figures),
                "exposed": exposed,
                "num_victims": len(told.victims),
                **_known(scene.data, played.cohort, told.victims),
                **figures,
            }

    def _solve(self, scene: Scene, played: Round, told: "_Told") -> dict[str, float]:
        """Read sums and releases by the methods that solve for clients' vectors."""
        seen = {"sum": [*played.earlier, played.whole]}
        if played.released is not None:
            seen["release"] = [*played.earlier_released, played.released]
        factors, anonymous = scene.factors, {}
        if factors is None:
            return {}
        known = scene.data.num_examples if self.side_knowledge == "activities" else None
        clients = np.array([victim.client for victim in told.victims])
        count = scene.data.num_clients
        for view, sums in seen.items():
            if self._uses("least_squares"):
                with scene.imitation() as imitation:
                    if imitation is not None:
                        attack = LeastSquares(
                            imitation, factors, scene.data.num_items, _REFINEMENTS, known
                        )
                        for each in sums[:-1]:
                            attack.read(each)
                        score = attack.read(sums[-1])
                        places = np.searchsorted(sums[-1].cohort, clients)
                        told.score(view, "least_squares", score[places], _half)
            if len(sums) > 1 and self._uses("regression"):
                score = regressed(sums, factors, clients, known, count)
                told.score(f"{view}s", "regression", score, _top(sums))
            if self._uses("separation"):
                rng = generator(self.seed, "attack-separation")
                rounds = separated(sums, factors, rng)
                if len(rounds) > 1:
                    score = told_apart(rounds, clients, count)
                    told.score(f"{view}s", "separation", score, _top(sums))
                anonymous[f"{view}/auc_anonymous"] = told.best_of(rounds[-1].sources.T)
                chance = rng.normal(size=rounds[-1].sources.T.shape)
                anonymous[f"{view}/auc_anonymous_chance"] = told.best_of(chance)
        return anonymous

    def _uses(self, method: Method) -> bool:
        return self.method in (method, "strongest")

    def said(self, figures: Mapping[str, Any]) -> str:
        """See `NoAttack.said`."""
        if not figures["num_victims"]:
            return "interaction inference found nobody to look at"
        if "auc" not in figures:
            return (
                f"interaction inference by {self.method} reads nothing of what the mechanism in "
                "force leaves"
            )
        views = {
            "update": "one client's message",
            "sum": "the sum over a cohort",
            "release": "what is released of the sum",
            "sums": "the sums over the cohorts of all rounds",
            "releases": "what is released of the sums of all rounds",
        }
        return (
            f"interaction inference from {views[figures['exposed']]} by {figures['method']}: "
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


class _Told:
    """What each method reads of each view, against the truth.

    Attributes:
        victims: those of whom a message arrived.
    """

    def __init__(self, victims: Sequence[Victim], num_items: int) -> None:
        self.victims = list(victims)
        self._num_items = num_items
        self._rows: dict[tuple[str, str], Floats] = {}  # view, method -> (victims, figures)
        self._without: dict[str, Floats] = {}

    def messages(self, played: Round) -> list[Mapping[str, Floats]]:
        """What each victim sends; who sends nothing is none."""
        sent = [(victim, played.message(victim.client)) for victim in self.victims]
        self.victims = [victim for victim, message in sent if message is not None]
        return [message for _, message in sent if message is not None]

    def read_messages(self, sent: Sequence[Mapping[str, Floats]]) -> None:
        """Read single messages by the direction in which rows moved."""
        rows = [self._readings(message, [v]) for message, v in zip(sent, self.victims, strict=True)]
        self._keep_better("update", np.concatenate(rows, axis=1))

    def read_sums(self, played: Round, sent: Sequence[Mapping[str, Floats]]) -> None:
        """Read sum and release by the direction in which rows moved."""
        views = {"sum": played.whole.seen}
        if played.released is not None:
            views["release"] = played.released.seen
        for view, seen in views.items():
            best = self._keep_better(view, self._readings(seen, self.victims))
            left = [
                self._readings({n: value - message[n] for n, value in seen.items()}, [victim])
                for message, victim in zip(sent, self.victims, strict=True)
            ]
            self._without[view] = np.concatenate(left, axis=1)[best]

    def score(
        self, view: str, method: str, scores: Floats, named: Callable[[Floats], Codes]
    ) -> None:
        """Judge scores (victims, num_items) that a method gave each victim."""
        self._rows[view, method] = np.array(
            [_found(s, named(s), v) for s, v in zip(scores, self.victims, strict=True)]
        )

    def best_of(self, sources: Floats) -> float:
        """The mean AUC if every victim is given the source that fits it best, each to one.

        Args:
            sources: float64 (k, num_items), either sign.
        """
        from scipy.optimize import linear_sum_assignment  # here: few runs are attacked

        areas = np.array([[v.pairs.auc(source) for source in sources] for v in self.victims])
        areas = np.maximum(areas, 1 - areas)
        row, column = linear_sum_assignment(-areas)
        return float(areas[row, column].mean())

    def figures(self) -> dict[str, Any]:
        """The figures of every view there is, as "view/figure"."""
        found: dict[str, Any] = {}
        for view in dict.fromkeys(view for view, _ in self._rows):
            methods = {m: rows for (v, m), rows in self._rows.items() if v == view}
            best = max(methods, key=lambda method: float(methods[method][:, 0].mean()))
            means = methods[best].mean(axis=0).tolist()
            found[f"{view}/method"] = best
            found |= {f"{view}/{n}": m for n, m in zip(_FIGURES, means, strict=True)}
            found[f"{view}/auc_se"] = _error(methods[best][:, 0])
            if view in self._without:
                found[f"{view}/auc_without"] = float(self._without[view][:, 0].mean())
            for method, rows in methods.items():
                found[f"{view}/{method}/auc"] = float(rows.mean(axis=0)[0])
                found[f"{view}/{method}/auc_se"] = _error(rows[:, 0])
        return found

    def _readings(self, seen: Mapping[str, Floats], victims: Sequence[Victim]) -> Floats:
        """float64 (2, victims, figures): of each of the two readings."""
        scores = readings(seen, self._num_items)
        named = guess(scores)
        return np.array([[_found(score, named, victim) for victim in victims] for score in scores])

    def _keep_better(self, view: str, rows: Floats) -> int:
        """Keep the one of two readings that tells more; which it was."""
        best = int(rows[:, :, 0].mean(axis=1).argmax())
        self._rows[view, "reading"] = rows[best]
        return best


def _found(score: Floats, named: Codes, victim: Victim) -> list[float]:
    """auc, auc_all_items, precision and recall of a score and of the items that it names."""
    hits = len(np.intersect1d(named, victim.own))
    whole = auc(score[victim.own], score[victim.others])
    return [victim.pairs.auc(score), whole, hits / max(len(named), 1), hits / len(victim.own)]


def _error(values: Floats) -> float:
    return float(values.std(ddof=min(1, len(values) - 1)) / np.sqrt(len(values)))


def _half(score: Floats) -> Codes:
    """The items that least squares names: nearer to one than to nothing."""
    return np.flatnonzero(score > 0.5)  # noqa: PLR2004


def _top(sums: Sequence[Sum]) -> Callable[[Floats], Codes]:
    """Names as many items as a client has on average, as far as weights tell."""
    weight = sum(each.weight for each in sums) / max(sum(len(each.cohort) for each in sums), 1)
    count = max(round(weight), 1)
    return lambda score: np.argsort(-score, kind="stable")[:count].astype(np.int64)


def _exposed(view: View, figures: Mapping[str, Any]) -> str:
    """What a mechanism leaves: who has one sum has those of all rounds; of both the stronger.

    Never a view that the mechanism hides, even if a method reads no other.
    """
    seen = [each for each in (view, f"{view}s") if f"{each}/auc" in figures]
    return max(seen, key=lambda each: float(figures[f"{each}/auc"]), default=view)


def _headline(exposed: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the view that is left to those whom the mechanism protects from, if read."""
    if f"{exposed}/auc" not in figures:
        return {}
    found = {name: figures[f"{exposed}/{name}"] for name in _HEADLINE}
    return {**found, "advantage": 2 * found["auc"] - 1}


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
