"""What a node keeps between messages: its data, a model to fill, its clients' parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.packing import Cost
from fedrec_flower.communication.secure_aggregation.secagg import SecureAggregation
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.random import Secret, Seed
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import ClientData, Prepared
from fedrec_flower.evaluation.base import Evaluator
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
from fedrec_flower.models.abilities import HistoryBased, SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.training.factory import choose_trainer
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX
from fedrec_flower.training.trainer import LocalTrainer

if TYPE_CHECKING:
    from fedrec_flower.privacy.mechanism import PrivacyMechanism

_PLAIN = {"_target_": "fedrec_flower.strategies.client_updates.Plain"}


@dataclass(frozen=True, slots=True)
class Node:
    """A node at work on one job.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender; its parameters are filled for each client in turn.
        trainer: what the clients learn by.
        evaluator: scores clients' held-out items.
        store: personal parameters of the clients hosted here.
        shared_names: names of the parameters that travel, in message order.
        seed: what the clients' draws follow from: the experiment's seed or a secret of the node.
        finetuning: what clients do before they are scored; None: nothing.
        secure: whether the server may see the sum of this node's clients.
        scores: whether the server may see how well this node's clients are served.
        local: whether clients protect their data from the server, which then sees no error.
        most_answers: how often each client may answer in this run; None: without limit.
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
    scores: bool
    local: bool
    most_answers: int | None

    @property
    def personal_is_per_user(self) -> bool:
        """Whether clients differ in nothing but the rows of their users."""
        shared = set(self.shared_names) - self.model.locally_adapted
        names = {name for name, _ in self.model.named_parameters()}
        return names - shared <= self.model.user_rows

    def named(self, parameters: list[NDArray[Any]]) -> Tensors:
        """Shared parameters by name, from their message order."""
        return dict(zip(self.shared_names, parameters, strict=True))

    def fill(self, data: ClientData, shared: Tensors, slot: str, own: Tensors) -> None:
        """Fill the model with all that a client scores with.

        Args:
            data: the client, or neighbouring ones read as one.
            shared: global parameters by name.
            slot: whose personal parameters are used.
            own: what takes the place of any of these.
        """
        kept = self.store.load(data, slot) | self.trainer.alone(data)
        self.model.load(shared | kept | own)
        if isinstance(self.model, SideInformation):
            self.model.load(self.model.side_information(data.attributes, data.train, None))
        if isinstance(self.model, HistoryBased):
            self.model.set_history(data.train)


@lru_cache(maxsize=2)
def open_node(job: str) -> Node:
    """Build a node; the last two stay open.

    Args:
        job: what its messages carry, and where the node keeps things; JSON object of configuration
            nodes `model`, `training`, `evaluation`, `privacy`, `compression`, `secure_aggregation`,
            `faults`, `attack`, `task`, `negatives`, `seed`, `randomness` ("seeded": clients draw by
            the seed, anything else: by the node's secret), `shares` (whether anything travels),
            `stacked` (whether updates go by themselves), `local` (what the strategy changes in the
            way clients train: a node of configuration, or nothing), `finetune_epochs` (local epochs
            before a client is scored, none by default), `freeze` (see `Recommender.freeze`, nothing
            by default), `limits` (what no honest update exceeds), `prepared` and `store` (folders,
            which no message names in a deployment), `deployed` (false by default), `kept` (folder
            of the secret that a deployed node has for all its runs), `most_answers` (how often a
            client may answer, without limit by default), `num_rounds`, `run` (tells one run from
            another).
    """
    spec = json.loads(job)
    data = Prepared(Path(spec["prepared"]))
    facts = {
        "num_users": 1,
        "num_items": data.num_items,
        "rating_range": data.rating_range,
        "item_features": data.item_features,
        "num_attributes": data.num_attributes,
        "task": spec["task"],
    }
    model: Recommender = build("model", spec["model"], **facts)
    model.freeze(spec.get("freeze", []))
    shared_names = model.shared_names() if spec["shares"] else []
    seed = _seed(spec)
    if isinstance(model, HistoryRecommender) and isinstance(seed, Secret):
        model.key = seed.at("model", "support-negatives", 0)
    most = spec["limits"]["weight"]
    secure = build("secure_aggregation", spec["secure_aggregation"], client_weight=most)
    store, trainer = _learning(spec, data, model, shared_names, seed, secure)
    evaluator = build("evaluation", spec["evaluation"], **facts)
    finetuning = None
    if spec.get("finetune_epochs"):
        epochs = spec["finetune_epochs"]
        engine = _engine(spec, model, data.num_items, seed, local_epochs=epochs)
        finetuning = Finetuning(model, engine, store)
    privacy: PrivacyMechanism = build("privacy", spec["privacy"])
    scores = privacy.trusts_server or not spec["deployed"]
    return Node(
        data,
        model,
        trainer,
        evaluator,
        store,
        shared_names,
        seed,
        finetuning,
        secure,
        scores,
        protects_from_server(privacy),
        spec.get("most_answers"),
    )


def _lasting(spec: Mapping[str, Any]) -> Seed:
    """What draws follow from that a client repeats: in every run, where the node is deployed."""
    if spec["randomness"] == "seeded":
        seed: int = spec["seed"]
        return seed
    return node_secret(Path(spec.get("kept", spec["store"])))


def _seed(spec: Mapping[str, Any]) -> Seed:
    """What all other draws follow from: no two runs of a deployed node share one."""
    lasting = _lasting(spec)
    if isinstance(lasting, Secret) and "kept" in spec:
        return Secret(lasting.at("run", spec["run"], 0))
    return lasting


def _learning(
    spec: dict[str, Any],
    data: Prepared,
    model: Recommender,
    shared_names: list[str],
    seed: Seed,
    secure: SecureAggregation,
) -> tuple[ClientStore, Trainer]:
    """What the clients keep, and what they learn by."""
    folder = Path(spec["store"])
    sizes = {"num_clients": data.num_clients, "num_items": data.num_items}
    # What goes wrong and who attacks is the simulation's world, no client's draw.
    faults = build("faults", spec["faults"], seed=spec["seed"], **sizes)
    attack = build("attack", spec["attack"], seed=spec["seed"], data=data, model=model)
    privacy: PrivacyMechanism = build("privacy", spec["privacy"])
    chance = NoiseSource(_lasting(spec))
    if isinstance(model, ClosedFormRecommender):
        kept = model.personal_names()
        rounds, shares = spec["num_rounds"], spec["shares"]
        solver = ExactTrainer(data, model, shares, rounds, seed, attack, faults, privacy, chance)
        return ClientStore(folder, model, kept, [], data.client_offsets, seed), solver
    kept = [name for name, _ in model.named_parameters() if name not in set(shared_names)]
    tuned = [name for name in shared_names if name in model.locally_adapted]
    store = ClientStore(folder, model, kept, tuned, data.client_offsets, seed)
    method = build("local", spec.get("local") or _PLAIN)
    engine = _engine(spec, model, data.num_items, seed, maml_step=method.maml_step)
    trained = [name for name in shared_names if name not in model.frozen]
    shapes = {name: tuple(model.get_parameter(name).shape) for name in trained}
    tables = frozenset(trained) & model.item_rows
    kept_state = store.client_state(method.keeps, shapes if method.keeps else {}, tables)
    if method.controls:
        shapes |= {f"{CONTROL_VARIATE_PREFIX}{name}": shape for name, shape in shapes.items()}
        tables |= {f"{CONTROL_VARIATE_PREFIX}{name}" for name in tables}
    compression = build("compression", spec["compression"], num_items=data.num_items)
    owing = shapes if compression.uses_error_feedback else {}
    limits = Limits(**spec["limits"])
    compress: UpdateStep = CompressionStep(
        compression, store.client_state("residual", owing, tables), seed
    )
    if privacy.hides_rows:
        compress = DenseMessageStep(
            Cost.from_shapes(shapes | privacy.extra_tensors, tables, data.num_items)
        )
    pipeline = UpdatePipeline(
        steps=[
            PrivacyStep(privacy, data.num_items, chance),
            WeightStep(secure.update_weights),
            compress,
            ClientFaultsStep(faults),
            PoisoningStep(attack),
            MessageFaultsStep(faults, limits),
            LimitsStep(limits),
        ],
        mechanism=privacy,
        tables=tables,
        names=[*shapes, *privacy.extra_tensors],
        sends_individual_updates=spec["stacked"],
    )
    trainer = GradientTrainer(
        data, model, engine, store, pipeline, faults, trained, method, kept_state
    )
    return store, trainer


def _engine(
    spec: dict[str, Any],
    model: Recommender,
    num_items: int,
    seed: Seed,
    maml_step: float | None = None,
    **changes: Any,
) -> LocalTrainer:
    """What trains the clients; `changes` are to the settings of training."""
    return choose_trainer(
        model,
        build("training", spec["training"] | changes),
        maml_step,
        task=spec["task"],
        negatives=spec["negatives"],
        num_items=num_items,
        seed=seed,
    )
