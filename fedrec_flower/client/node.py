"""What a node keeps between messages: its data, a model to fill, its clients' parameters."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedrec_flower.client.store import ClientStore
from fedrec_flower.client.trainers import ExactTrainer, GradientTrainer, Trainer
from fedrec_flower.config import build
from fedrec_flower.evaluation import Evaluator
from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.models.exact import ExactRecommender
from fedrec_flower.prepared import ClientData, Prepared
from fedrec_flower.training import choose_engine


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
        seed: the experiment's seed.
    """

    data: Prepared
    model: Recommender
    trainer: Trainer
    evaluator: Evaluator
    store: ClientStore
    shared_names: list[str]
    seed: int

    @property
    def personal_is_per_user(self) -> bool:
        """Whether clients differ in nothing but the rows of their users."""
        shared = set(self.shared_names) - self.model.tuned
        names = {name for name, _ in self.model.named_parameters()}
        return names - shared <= self.model.user_rows

    def named(self, parameters: list[NDArray[Any]]) -> Tensors:
        """Shared parameters by name, from their message order."""
        return dict(zip(self.shared_names, parameters, strict=True))

    def fill(self, data: ClientData, shared: Tensors, slot: str) -> None:
        """Fill the model with all that a client scores with.

        Args:
            data: the client, or neighbouring ones read as one.
            shared: global parameters by name.
            slot: whose personal parameters are used.
        """
        self.model.load(shared | self.store.load(data, slot) | self.trainer.alone(data))
        self.model.observe(data.train)


@lru_cache(maxsize=2)
def open_node(job: str) -> Node:
    """Build a node from the job its messages carry; the last two jobs stay open.

    Args:
        job: JSON object of `model`, `training`, `evaluation`, `privacy` (configuration nodes),
            `task`, `negatives`, `seed`, `shares` (whether anything travels), `prepared` and
            `store` (folders), `num_rounds`, `run` (tells one run from another).
    """
    spec = json.loads(job)
    data = Prepared(Path(spec["prepared"]))
    facts = {
        "num_users": 1,
        "num_items": data.num_items,
        "rating_range": data.rating_range,
        "task": spec["task"],
    }
    model: Recommender = build("model", spec["model"], **facts)
    shared_names = model.shared_names() if spec["shares"] else []
    store, trainer = _learning(spec, data, model, shared_names)
    evaluator = build("evaluation", spec["evaluation"], **facts)
    return Node(data, model, trainer, evaluator, store, shared_names, spec["seed"])


def _learning(
    spec: dict[str, Any], data: Prepared, model: Recommender, shared_names: list[str]
) -> tuple[ClientStore, Trainer]:
    """What the clients keep, and what they learn by."""
    seed, folder = spec["seed"], Path(spec["store"])
    if isinstance(model, ExactRecommender):
        kept = model.personal_names()
        solver = ExactTrainer(data, model, spec["shares"], spec["num_rounds"], seed)
        return ClientStore(folder, model, kept, [], data.client_offsets, seed), solver
    kept = [name for name, _ in model.named_parameters() if name not in set(shared_names)]
    tuned = [name for name in shared_names if name in model.tuned]
    store = ClientStore(folder, model, kept, tuned, data.client_offsets, seed)
    engine = choose_engine(
        model,
        build("training", spec["training"]),
        task=spec["task"],
        negatives=spec["negatives"],
        num_items=data.num_items,
        seed=seed,
    )
    privacy = build("privacy", spec["privacy"])
    return store, GradientTrainer(data, model, engine, store, privacy, shared_names)
