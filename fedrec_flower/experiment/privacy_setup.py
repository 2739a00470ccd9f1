"""What privacy makes of a run, and which runs it refuses."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from fedrec_flower.communication.secure_aggregation import secagg as masks
from fedrec_flower.communication.secure_aggregation.secagg import NoSecureAggregation, SecAgg
from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.sources.base import lists_items
from fedrec_flower.experiment.transfer import SavedModel
from fedrec_flower.federation.server.loop import FederatedStrategy
from fedrec_flower.federation.server.plan import Release
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.ledger import LEDGER, Ledger, Spent
from fedrec_flower.privacy.mechanism import Curator, NoPrivacy
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.privacy.requirements import Circumstances, Published, Way

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guard:
    """A mechanism and the run that it protects.

    Attributes:
        node: its configuration, with the values that follow from the run.
        privacy: the mechanism.
        secure: how masks hide a node's sum.
        run: what it must know of the run.
        chance: where its randomness comes from.
        deployed: whether the federation is real.
        release: which evaluated round is released.
        budget: the epsilon that the run may cost; infinity without a limit.
        most_weight: the largest weight of what one client sends.
    """

    node: Mapping[str, Any]
    privacy: NoPrivacy
    secure: SecAgg | NoSecureAggregation
    run: Circumstances
    chance: Chance
    deployed: bool
    release: Release
    budget: float
    most_weight: float

    @classmethod
    def of(
        cls, config: Mapping[str, Any], data: Prepared, model: Recommender, *, deployed: bool
    ) -> "Guard":
        """The mechanism that a configuration asks for.

        Args:
            config: the resolved configuration.
            data: the prepared data.
            model: the recommender, without users.
            deployed: whether the federation is real, so that noise must not repeat.
        """
        chosen: NoPrivacy = build("privacy", config["privacy"])
        solved = isinstance(model, ClosedFormRecommender)
        users = data.most_users if solved else 1
        most = chosen.most_weight(data.most_examples, users)
        if config["secure_aggregation"].get("weights") == "equal" and not solved:
            most = 1.0
        secure = build("secure_aggregation", config["secure_aggregation"], client_weight=most)
        # Whoever adds noise covers what rounding adds to a contribution; nobody else need know.
        rounded = secure.most_rounded(data.num_clients) if chosen.draws else 0.0
        measures = chosen.trusts_server or not deployed
        release: Release = config["release"] or ("last" if chosen.guarantees else "validation")
        _check_release(config, release, measures=measures)
        repeats = config["randomness"] == "seeded" and not deployed
        published = Published(
            metrics=measures,
            choice=release == "validation",
            catalogue=not lists_items(build("dataset", config["dataset"])),
            seed=repeats,
        )
        run = _circumstances(config, data, model, secure.clip_range, rounded, published)
        node = {**config["privacy"], **chosen.settle(run)}
        chance = Chance(config["seed"] if repeats else None)
        privacy: NoPrivacy = build("privacy", node)
        budget = _budget(config["privacy"])
        return cls(node, privacy, secure, run, chance, deployed, release, budget, most)

    @property
    def measures(self) -> bool:
        """Whether clients are scored: their exact sums would tell an untrusted server too much."""
        return self.run.published.metrics

    def curator(self, folder: Path | None = None, source: SavedModel | None = None) -> Curator:
        """The server's side, at its beginning.

        Args:
            folder: the run's folder, where its account is kept; None to keep none.
            source: the model that the run starts from.

        Raises:
            ConfigError: if the guarantee would not cover what that model was learnt from, or the
                folder's releases would be made again with the same noise and other clients.
            DataError: if the folder's account cannot be read.
        """
        repeats = self.chance.seed is not None
        masked = isinstance(self.secure, SecAgg) and self.privacy.trusts_server
        kept = self.privacy.draws and (masked or not repeats)
        path = folder / LEDGER if folder is not None and kept else None
        require(
            not repeats or path is None or not path.exists(),
            f"{path} tells of releases with seeded noise, which a round trained again would repeat "
            "on the sum of other clients, for masked clients answer a round once: start a new run "
            "in another folder, with randomness=private if it is to be resumed",
        )
        ledger = Ledger(path, self.budget, self._spent_by(source))
        return self.privacy.curator(self.run, self.chance, ledger)

    def _spent_by(self, source: SavedModel | None) -> Spent:
        """The guarantee of the model that the run starts from, which is added to that of the run.

        Raises:
            ConfigError: if it has none, or one for other units.
        """
        promises = self.privacy.guarantees and self.node.get("noise_multiplier") != 0
        if source is None or not promises:
            return Spent()
        told = source.privacy
        if told is None:
            raise ConfigError(
                f"init_from={source.path} was trained without a privacy guarantee, and epsilon "
                "would not cover what it tells of its users: start from a run with the same "
                f"privacy={self.node['name']}, or leave init_from null"
            )
        require(
            "does_not_cover" in told,
            f"init_from={source.path} does not say what its guarantee leaves out: run it again "
            "with this version",
        )
        require(
            self.chance.seed is not None or not told["seeded"],
            f"init_from={source.path} has seeded noise, which the seed takes off, and this run "
            "draws by randomness=private: start from a run with randomness=private",
        )
        own = self.privacy.curator(self.run, self.chance).facts()["privacy"]["neighbours"]
        require(
            told["neighbours"] == own,
            f"init_from={source.path} protects that {told['neighbours']}, this run that {own}: "
            "epsilons of different guarantees cannot be added, so choose privacy as there",
        )
        _LOG.warning(
            "epsilon and delta are sums: the model in init_from has already spent epsilon=%g, "
            "delta=%g",
            *(told["epsilon"], told["delta"]),
        )
        return Spent(told["epsilon"], told["delta"], tuple(told["does_not_cover"]))

    def facts(self) -> dict[str, Any]:
        """What the summary says of the run beside what the curator gives."""
        masked = masks.facts() if isinstance(self.secure, SecAgg) else {}
        return {"release": self.release, **masked}

    def job(self) -> dict[str, Any]:
        """What nodes must know; see `client.node.open_node`."""
        return {"privacy": dict(self.node), "deployed": self.deployed}

    def check(self, strategy: FederatedStrategy) -> None:
        """Refuse a guarantee that the way from updates to parameters would break.

        Raises:
            ConfigError: names what stands in the way, why, and the mend.
        """
        way = Way(
            strategy=type(strategy).__name__,
            shares=strategy.shares,
            by_sum_alone=strategy.by_sum_alone,
            by_row=strategy.aggregation == "touched_clients",
        )
        self.privacy.check(self.run, way)
        if self.privacy.draws and self.chance.seed is not None:
            _LOG.warning(
                "the noise of privacy is seeded, so that the run repeats: whoever knows the seed "
                "can take it off; randomness=private draws it from the operating system"
            )
        if isinstance(self.secure, SecAgg) and self.run.published.seed:
            _LOG.warning(
                "clients draw by the seed, so that the run repeats: a server that knows the seed, "
                "as it does, can take masked sums apart; randomness=private draws by node secrets"
            )
        if isinstance(self.secure, SecAgg) and not self.privacy.guarantees:
            _LOG.warning(
                "masks hide single updates, not what exact sums tell: the sums of many rounds give "
                "single clients away, and so does a sum of few clients; privacy=central_dp bounds "
                "what is released, privacy=local_dp what is sent"
            )
        if self.privacy.guarantees and self.run.published.catalogue:
            _LOG.warning(
                "the catalogue is the items that interactions name, and its ids are published: an "
                "item of a single user tells of it; dataset=file takes the catalogue from a table "
                "by dataset.items_path and dataset.catalogue=items"
            )
        if self.privacy.guarantees and self.run.published.choice:
            _LOG.warning(
                "the released round is chosen by exact validation, which privacy does not cover: "
                "release=last releases the last"
            )


def _budget(privacy: Mapping[str, Any]) -> float:
    target = privacy.get("target_epsilon")
    return inf if target is None else float(target)


def _check_release(config: Mapping[str, Any], release: Release, *, measures: bool) -> None:
    """Refuse to choose by what decides nothing, or is not known.

    Raises:
        ConfigError: names the value and the mend.
    """
    require(release in ("last", "validation"), f"release={release} must be last or validation")
    require(
        release == "validation" or config["patience"] is None,
        f"patience={config['patience']} ends a run by validation, which decides nothing where the "
        "last round is released, as it is under privacy: set patience=null, or release=validation",
    )
    require(
        measures or release == "last",
        "release=validation needs metrics, and deployed clients send none under "
        f"privacy={config['privacy']['name']}: set release=last",
    )


def _circumstances(
    config: Mapping[str, Any],
    data: Prepared,
    model: Recommender,
    clip_range: float,
    rounded: float,
    published: Published,
) -> Circumstances:
    """What a mechanism must know of a run; `rounded`: what rounding adds to each value at most."""
    cohort = config["clients_per_round"]
    return Circumstances(
        num_clients=data.num_clients,
        most_users=data.most_users,
        clients_per_round=data.num_clients if cohort is None else cohort,
        num_rounds=config["num_rounds"],
        model=type(model).__name__,
        statistics=isinstance(model, ClosedFormRecommender),
        bounded_statistics=isinstance(model, ClosedFormRecommender) and model.bounded,
        retries=config["min_completion"] > 0,
        clip_range=clip_range,
        rounding=rounded * sqrt(_num_values(model)) if rounded else 0.0,
        published=published,
    )


def _num_values(model: Recommender) -> int:
    """How many numbers a client sends, of parameters or of statistics."""
    if not isinstance(model, ClosedFormRecommender):
        return model.num_shared()
    initial = model.initial(model.shared_names(), np.random.default_rng(0))
    return sum(prod(shape) for shape in model.statistic_shapes(initial).values())
