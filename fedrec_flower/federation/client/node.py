"""Builds a node from its job, and keeps it open between messages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.packing import Cost
from fedrec_flower.communication.secure_aggregation.secagg import SecureAggregation
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.random import Secret, Seed
from fedrec_flower.core.types import IndexArray, Tensors
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Evaluator, Scorer
from fedrec_flower.evaluation.scoring import ModelScorer
from fedrec_flower.federation.client.client_scoring import ClientScorer, StoredParameters
from fedrec_flower.federation.client.finetuning import Finetuning
from fedrec_flower.federation.client.state_store import ClientStore, node_secret
from fedrec_flower.federation.client.trainers import (
    ExactTrainer,
    GradientTrainer,
    Trainer,
    protects_from_server,
)
from fedrec_flower.federation.client.update_pipeline import (
    ClientFaultsStep,
    CompressionStep,
    DenseMessageStep,
    LimitsStep,
    MessageFaultsStep,
    PoisoningStep,
    PrivacyStep,
    UpdatePipeline,
    UpdateStep,
    WeightStep,
)
from fedrec_flower.federation.components import (
    build_attack,
    build_evaluator,
    build_faults,
    build_model,
    build_privacy,
    build_secure_aggregation,
    build_training,
)
from fedrec_flower.federation.job import NodeJob, NodePlace
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate
from fedrec_flower.threats.base import Attack
from fedrec_flower.threats.faults import FaultModel
from fedrec_flower.training.factory import choose_trainer
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import LocalTrainer

_CLIENTS_PER_VERSION = 4  # at least: smaller groups are scored together, with stacked parameters


@dataclass(frozen=True, slots=True)
class Node:
    """A node at work on one job.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender; the parameters of one client after another are loaded into it.
        trainer: trains the clients.
        evaluator: evaluates clients on their held-out items.
        store: personal state of the clients hosted here.
        shared_names: names of the parameters that travel, in message order.
        seed: seed of the clients' draws: the experiment's seed, or a secret of the node.
        finetuning: local steps before a client is evaluated; None for none.
        secure: secure aggregation.
        sends_metrics: whether the server may see evaluation sums of this node's clients.
        protects_from_server: whether clients protect their data from the server, which must then
            see no error that depends on data.
        max_answers: how often each client may answer in this run; None for no limit.
    """

    data: Prepared
    model: Recommender
    trainer: Trainer
    evaluator: Evaluator
    store: ClientStore
    shared_names: list[str]
    seed: Seed
    finetuning: Finetuning | None
    secure: SecureAggregation
    sends_metrics: bool
    protects_from_server: bool
    max_answers: int | None

    def named(self, parameters: list[NDArray[Any]]) -> Tensors:
        """Return shared parameters by name, from their message order."""
        return dict(zip(self.shared_names, parameters, strict=True))

    def scorers(
        self, clients: Sequence[int], given: Versions, slot: str, round_: int
    ) -> Iterator[tuple[UserBatch, Scorer]]:
        """Yield batches of the clients' users, and what scores each batch.

        A batch must be scored before the next one is requested: scorers share the model.

        Args:
            clients: their codes.
            given: the shared parameters that they receive.
            slot: slot of the personal parameters.
            round_: the round, part of the address of the draws of finetuning.
        """
        codes = np.array(clients, np.int64)
        if not len(codes):
            return
        if self.finetuning is not None:
            yield from self.finetuning.tune(codes, given, slot, round_)
            return
        groups = _by_version(codes, given)
        if self._differ_in_user_rows_only() and len(groups) <= len(codes) / _CLIENTS_PER_VERSION:
            for group in groups:
                users = UserBatch.read(self.data, group)
                self.model.load(given.of(int(group[0])) | self.store.read(users, slot))
                yield users, ModelScorer(self.model)
            return
        users = UserBatch.read(self.data, codes)
        parameters = StoredParameters(users, self.model, self.store, slot, given, self.trainer)
        yield users, ClientScorer(self.model, parameters)

    def _differ_in_user_rows_only(self) -> bool:
        """Whether clients with the same shared parameters differ in their users' rows only."""
        shared = set(self.shared_names) - self.model.locally_adapted
        names = {name for name, _ in self.model.named_parameters()}
        return names - shared <= self.model.user_rows


def _by_version(clients: IndexArray, given: Versions) -> list[IndexArray]:
    """Return the clients of each version of the shared parameters, in their order."""
    if given.is_single:
        return [clients]
    versions = given.of_clients(clients)
    return [clients[versions == version] for version in np.unique(versions)]


@lru_cache(maxsize=2)
def open_node(job: str, place: NodePlace) -> Node:
    """Build a node; the last two nodes stay open.

    Args:
        job: a `NodeJob` as JSON.
        place: paths and settings of the node.

    Raises:
        ConfigError: if the job is not valid.
    """
    return _NodeBuilder.create(NodeJob.from_json(job), place).build()


@dataclass(frozen=True, slots=True)
class _NodeBuilder:
    """Builds the parts of a node.

    Attributes:
        job: the job.
        place: paths and settings of the node.
        data: reader of the prepared folder.
        model: the recommender.
        shared_names: names of the parameters that travel, in message order.
        lasting_seed: seed of the draws that a client must repeat in all runs of a deployed node.
        seed: seed of all other draws; no two runs of a deployed node share it.
        secure: secure aggregation.
        privacy: the privacy mechanism.
        faults: the fault model; like the attack it belongs to the simulation and follows from the
            experiment's seed.
        attack: the attack.
    """

    job: NodeJob
    place: NodePlace
    data: Prepared
    model: Recommender
    shared_names: list[str]
    lasting_seed: Seed
    seed: Seed
    secure: SecureAggregation
    privacy: PrivacyMechanism
    faults: FaultModel
    attack: Attack

    @classmethod
    def create(cls, job: NodeJob, place: NodePlace) -> "_NodeBuilder":
        data = Prepared(Path(place.prepared))
        model = build_model(job.model, data.info, job.task)
        model.freeze(job.freeze)
        lasting_seed = _lasting_seed(job, place)
        seed = lasting_seed
        if isinstance(lasting_seed, Secret) and place.secret_folder:
            seed = Secret(lasting_seed.at("run", job.run, 0))
        if isinstance(model, HistoryRecommender) and isinstance(seed, Secret):
            model.key = seed.at("model", "support-negatives", 0)
        return cls(
            job=job,
            place=place,
            data=data,
            model=model,
            shared_names=model.shared_names() if job.communicates else [],
            lasting_seed=lasting_seed,
            seed=seed,
            secure=build_secure_aggregation(job.secure_aggregation, job.limits.weight),
            privacy=build_privacy(job.privacy),
            faults=build_faults(job.faults, data, job.seed),
            attack=build_attack(job.attack, data, model, job.seed),
        )

    def build(self) -> Node:
        job, data = self.job, self.data
        if isinstance(self.model, ClosedFormRecommender):
            store, trainer = self._closed_form_trainer(self.model)
        else:
            store, trainer = self._gradient_trainer()
        finetuning = None
        if job.finetune_epochs:
            local_trainer = self._local_trainer(local_epochs=job.finetune_epochs)
            finetuning = Finetuning(data, self.model, local_trainer, store)
        deployed = job.deployed or self.place.deployed
        return Node(
            data=data,
            model=self.model,
            trainer=trainer,
            evaluator=build_evaluator(job.evaluation, data.info, job.task),
            store=store,
            shared_names=self.shared_names,
            seed=self.seed,
            finetuning=finetuning,
            secure=self.secure,
            sends_metrics=self.privacy.trusts_server or not deployed,
            protects_from_server=protects_from_server(self.privacy),
            max_answers=self.place.max_answers,
        )

    def _closed_form_trainer(self, model: ClosedFormRecommender) -> tuple[ClientStore, Trainer]:
        job = self.job
        store = self._store(model.personal_names(), locally_adapted=[])
        trainer = ExactTrainer(
            data=self.data,
            model=model,
            communicates=job.communicates,
            num_rounds=job.num_rounds,
            seed=self.seed,
            attack=self.attack,
            faults=self.faults,
            privacy=self.privacy,
            noise_source=NoiseSource(self.lasting_seed),
        )
        return store, trainer

    def _gradient_trainer(self) -> tuple[ClientStore, Trainer]:
        job, model = self.job, self.model
        shared = set(self.shared_names)
        personal = [name for name, _ in model.named_parameters() if name not in shared]
        locally_adapted = [name for name in self.shared_names if name in model.locally_adapted]
        store = self._store(personal, locally_adapted)
        rule: LocalUpdateRule = build("local", job.local) if job.local else PlainUpdate()
        trained = [name for name in self.shared_names if name not in model.frozen]
        shapes = {name: tuple(model.get_parameter(name).shape) for name in trained}
        tables = frozenset(trained) & model.item_rows
        rule_state = store.client_state(rule.state_name, shapes if rule.state_name else {}, tables)
        if rule.uses_control_variates:
            shapes |= {f"{CONTROL_VARIATE_PREFIX}{name}": shape for name, shape in shapes.items()}
            tables |= {f"{CONTROL_VARIATE_PREFIX}{name}" for name in tables}
        trainer = GradientTrainer(
            data=self.data,
            model=model,
            local_trainer=self._local_trainer(rule.maml_step),
            store=store,
            pipeline=self._pipeline(store, shapes, tables),
            faults=self.faults,
            trained=trained,
            rule=rule,
            rule_state=rule_state,
        )
        return store, trainer

    def _pipeline(
        self,
        store: ClientStore,
        shapes: Mapping[str, tuple[int, ...]],
        tables: frozenset[str],
    ) -> UpdatePipeline:
        job, num_items, privacy = self.job, self.data.num_items, self.privacy
        compression = build("compression", job.compression, num_items=num_items)
        cost = Cost.from_shapes({**shapes, **privacy.extra_tensors}, tables, num_items)
        residual_shapes = shapes if compression.uses_error_feedback else {}
        residuals = store.client_state("residual", residual_shapes, tables)
        compress: UpdateStep = CompressionStep(compression, residuals, self.seed, cost)
        if privacy.hides_rows:
            compress = DenseMessageStep(cost)
        steps = [
            PrivacyStep(privacy, num_items, NoiseSource(self.lasting_seed)),
            WeightStep(self.secure.update_weights),
            compress,
            ClientFaultsStep(self.faults),
            PoisoningStep(self.attack),
            MessageFaultsStep(self.faults, job.limits),
            LimitsStep(job.limits),
        ]
        return UpdatePipeline(
            steps=[step for step in steps if not step.is_identity],
            mechanism=privacy,
            tables=tables,
            names=[*shapes, *privacy.extra_tensors],
            sends_individual_updates=job.individual_updates,
            limits=job.limits,
        )

    def _store(self, personal: Iterable[str], locally_adapted: list[str]) -> ClientStore:
        offsets = self.data.client_offsets
        folder = Path(self.place.store)
        return ClientStore(folder, self.model, list(personal), locally_adapted, offsets, self.seed)

    def _local_trainer(self, maml_step: float | None = None, **changes: Any) -> LocalTrainer:
        """Build the trainer of clients; `changes` replace settings of local training."""
        return choose_trainer(
            self.model,
            build_training(self.job.training, **changes),
            maml_step,
            task=self.job.task,
            negatives=self.job.negatives,
            num_items=self.data.num_items,
            seed=self.seed,
        )


def _lasting_seed(job: NodeJob, place: NodePlace) -> Seed:
    """Return the experiment's seed, or the secret that a deployed node uses for all its runs."""
    if job.is_seeded:
        return job.seed
    return node_secret(Path(place.secret_folder or place.store))
