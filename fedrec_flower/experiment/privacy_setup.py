"""Set-up of the privacy mechanism of a run, and the check that its guarantee holds."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from fedrec_flower.communication.secure_aggregation import secagg as masks
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg, SecureAggregation
from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.sources.base import lists_items
from fedrec_flower.experiment.transfer import SavedModel
from fedrec_flower.federation.components import build_privacy, build_secure_aggregation
from fedrec_flower.federation.server.plan import Release
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.ledger import LEDGER, InitialGuarantee, Ledger
from fedrec_flower.privacy.mechanism import PrivacyMechanism, ServerMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import AggregationFacts, Published, RunFacts
from fedrec_flower.strategies.base import FederatedStrategy

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PrivacySetup:
    """A privacy mechanism and the facts of the run that it protects.

    Attributes:
        node: configuration of the mechanism, with the values that depend on the run.
        privacy: the mechanism.
        secure: the secure aggregation.
        run: facts of the run.
        noise_source: source of randomness.
        deployed: whether the federation is a deployment.
        release: which evaluated round is released.
        budget: the epsilon that the run may cost; infinity for no limit.
        max_weight: the largest weight of one client's message.
    """

    node: Mapping[str, Any]
    privacy: PrivacyMechanism
    secure: SecureAggregation
    run: RunFacts
    noise_source: NoiseSource
    deployed: bool
    release: Release
    budget: float
    max_weight: float

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], data: Prepared, model: Recommender, *, deployed: bool
    ) -> "PrivacySetup":
        """Set up the mechanism of a configuration.

        Args:
            config: the resolved configuration.
            data: the prepared data.
            model: the recommender, without users.
            deployed: whether the federation is a deployment, where noise must not repeat.
        """
        chosen = build_privacy(config["privacy"])
        solved = isinstance(model, ClosedFormRecommender)
        users = data.most_users if solved else 1
        most = chosen.max_weight(data.most_examples, users)
        if config["secure_aggregation"].get("weights") == "equal" and not solved:
            most = 1.0
        secure = build_secure_aggregation(config["secure_aggregation"], most)
        # Noise must also cover the error that rounding adds to a contribution.
        rounded = secure.max_rounding_error(data.num_clients) if chosen.is_random else 0.0
        measures = chosen.trusts_server or not deployed
        release: Release = config["release"] or ("last" if chosen.has_guarantee else "validation")
        _check_release(config, release, measures=measures)
        repeats = config["randomness"] == "seeded" and not deployed
        published = Published(
            metrics=measures,
            choice=release == "validation",
            catalogue=not lists_items(build("dataset", config["dataset"])),
            seed=repeats,
        )
        run = _run_facts(config, data, model, secure.max_abs_value, rounded, published)
        node = {**config["privacy"], **chosen.resolve(run)}
        noise_source = NoiseSource(config["seed"] if repeats else None)
        privacy = build_privacy(node)
        budget = _budget(config["privacy"])
        return cls(node, privacy, secure, run, noise_source, deployed, release, budget, most)

    @property
    def measures(self) -> bool:
        """Whether clients are evaluated; their exact sums would reveal too much to the server."""
        return self.run.published.metrics

    def server_mechanism(
        self, folder: Path | None = None, source: SavedModel | None = None
    ) -> ServerMechanism:
        """The server side of the mechanism, before the first round.

        Args:
            folder: the run's folder, which contains the ledger; None for no ledger.
            source: the model that the run starts from.

        Raises:
            ConfigError: if the guarantee would not cover the training data of that model, or
                releases in the folder would be repeated with the same noise and other clients.
            DataError: if the ledger cannot be read.
        """
        repeats = self.noise_source.seed is not None
        masked = isinstance(self.secure, SecAgg) and self.privacy.trusts_server
        needs_ledger = self.privacy.is_random and (masked or not repeats)
        path = folder / LEDGER if folder is not None and needs_ledger else None
        require(
            not repeats or path is None or not path.exists(),
            f"{path} has releases with seeded noise, and a repeated round would use the same noise "
            "for the sum of other clients, because masked clients reply to a round once: start a "
            "new run in another folder, with randomness=private if it is to be resumed",
        )
        ledger = Ledger(path, self.budget, self._spent_by(source))
        return self.privacy.server_mechanism(self.run, self.noise_source, ledger)

    def _spent_by(self, source: SavedModel | None) -> InitialGuarantee:
        """The guarantee of the model that the run starts from, which is added to that of the run.

        Raises:
            ConfigError: if the model has no guarantee, or one for other units.
        """
        has_guarantee = self.privacy.has_guarantee and self.node.get("noise_multiplier") != 0
        if source is None or not has_guarantee:
            return InitialGuarantee()
        saved = source.privacy
        if saved is None:
            raise ConfigError(
                f"init_from={source.path} was trained without a privacy guarantee, and epsilon "
                "would not cover the users it was trained on: start from a run with the same "
                f"privacy={self.node['name']}, or leave init_from null"
            )
        require(
            "does_not_cover" in saved,
            f"init_from={source.path} does not state what its guarantee does not cover: run it "
            "again with this version",
        )
        require(
            self.noise_source.seed is not None or not saved["seeded"],
            f"init_from={source.path} has seeded noise, which can be removed with the seed, and "
            "this run has randomness=private: start from a run with randomness=private",
        )
        neighbours = self.privacy.server_mechanism(self.run, self.noise_source).facts()["privacy"][
            "neighbours"
        ]
        require(
            saved["neighbours"] == neighbours,
            f"init_from={source.path} protects that {saved['neighbours']}, this run that "
            f"{neighbours}: epsilons of different guarantees cannot be added, so set privacy as in "
            "that run",
        )
        _LOG.warning(
            "epsilon and delta are sums: the model in init_from has already spent epsilon=%g, "
            "delta=%g",
            saved["epsilon"],
            saved["delta"],
        )
        return InitialGuarantee(saved["epsilon"], saved["delta"], tuple(saved["does_not_cover"]))

    def facts(self) -> dict[str, Any]:
        """Entries of the summary that do not come from the server side of the mechanism."""
        masked = masks.facts() if isinstance(self.secure, SecAgg) else {}
        return {"release": self.release, **masked}

    def check(self, strategy: FederatedStrategy) -> None:
        """Check that the strategy keeps the guarantee, and warn about its limits.

        Raises:
            ConfigError: names the conflicting setting, the reason and the fix.
        """
        aggregation = AggregationFacts(
            strategy=type(strategy).__name__,
            shares=strategy.communicates,
            by_sum_alone=strategy.uses_only_the_sum,
            by_row=strategy.aggregation == "touched_clients",
        )
        self.privacy.check(self.run, aggregation)
        if self.privacy.is_random and self.noise_source.seed is not None:
            _LOG.warning(
                "the noise of privacy is seeded, so that the run repeats: anyone who knows the "
                "seed can remove it; randomness=private draws it from the operating system"
            )
        if isinstance(self.secure, SecAgg) and self.run.published.seed:
            _LOG.warning(
                "clients' draws are derived from the seed, so that the run repeats: a server that "
                "knows the seed, as it does, can separate masked sums; randomness=private uses "
                "secrets of the nodes"
            )
        if isinstance(self.secure, SecAgg) and not self.privacy.has_guarantee:
            _LOG.warning(
                "masks hide single updates, but not the information in exact sums: the sums of "
                "many rounds reveal single clients, and so does a sum of few clients; "
                "privacy=central_dp limits what released values reveal, privacy=local_dp what "
                "sent values reveal"
            )
        if self.privacy.has_guarantee and self.run.published.catalogue:
            _LOG.warning(
                "the catalogue is made from the items in interactions, and its ids are published: "
                "an item of a single user reveals something about that user; dataset=file takes "
                "the catalogue from a table by dataset.items_path and dataset.catalogue=items"
            )
        if self.privacy.has_guarantee and self.run.published.choice:
            _LOG.warning(
                "the released round is chosen by exact validation, which privacy does not cover: "
                "release=last releases the last"
            )


def _budget(privacy: Mapping[str, Any]) -> float:
    """The epsilon that a run may cost; infinity if there is no target."""
    target = privacy.get("target_epsilon")
    return inf if target is None else float(target)


def _check_release(config: Mapping[str, Any], release: Release, *, measures: bool) -> None:
    """Check that validation is used only if it decides the release and is measured.

    Raises:
        ConfigError: names the value and the fix.
    """
    require(release in ("last", "validation"), f"release={release} must be last or validation")
    require(
        release == "validation" or config["patience"] is None,
        f"patience={config['patience']} ends a run by validation, but the last round is released, "
        "as is the default under privacy: set patience=null, or release=validation",
    )
    require(
        measures or release == "last",
        "release=validation needs metrics, and deployed clients send none under "
        f"privacy={config['privacy']['name']}: set release=last",
    )


def _run_facts(
    config: Mapping[str, Any],
    data: Prepared,
    model: Recommender,
    clip_range: float,
    rounded: float,
    published: Published,
) -> RunFacts:
    """Facts of a run; `rounded`: the largest error of each value by rounding."""
    cohort = config["clients_per_round"]
    return RunFacts(
        num_clients=data.num_clients,
        max_users=data.most_users,
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
    """The number of values that a client sends, of parameters or of statistics."""
    if not isinstance(model, ClosedFormRecommender):
        return model.num_shared()
    initial = model.initial(model.shared_names(), np.random.default_rng(0))
    return sum(prod(shape) for shape in model.statistic_shapes(initial).values())
