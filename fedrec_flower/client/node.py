"""What a node keeps between messages: its data, a model to fill, its clients' parameters."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedrec_flower.client.store import ClientStore
from fedrec_flower.config import build
from fedrec_flower.evaluation import Evaluator
from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.prepared import Prepared
from fedrec_flower.privacy import NoPrivacy
from fedrec_flower.training import Engine, choose_engine


@dataclass(frozen=True, slots=True)
class Node:
    """A node at work on one job.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender; its parameters are filled for each client in turn.
        engine: trains clients.
        evaluator: scores clients' held-out items.
        privacy: the step applied to each client's update before anything is summed.
        store: personal parameters of the clients hosted here.
        shared_names: names of the parameters that travel, in message order.
        seed: the experiment's seed.
    """

    data: Prepared
    model: Recommender
    engine: Engine
    evaluator: Evaluator
    privacy: NoPrivacy
    store: ClientStore
    shared_names: list[str]
    seed: int

    @property
    def personal_is_per_user(self) -> bool:
        """Whether clients differ in nothing but the rows of their users."""
        shared = set(self.shared_names)
        names = {name for name, _ in self.model.named_parameters()}
        return names - shared <= self.model.user_rows

    @property
    def shared_tables(self) -> list[str]:
        """Names of the shared parameters with a row per item."""
        return [name for name in self.shared_names if name in self.model.item_rows]

    def named(self, parameters: list[NDArray[Any]]) -> Tensors:
        """Shared parameters by name, from their message order."""
        return dict(zip(self.shared_names, parameters, strict=True))


@lru_cache(maxsize=2)
def open_node(job: str) -> Node:
    """Build a node from the job its messages carry; the last two jobs stay open.

    Args:
        job: JSON object of `model`, `training`, `evaluation`, `privacy` (configuration nodes),
            `task`, `negatives`, `seed`, `shares` (whether anything travels), `prepared` and
            `store` (folders), `run` (tells one run from another).
    """
    spec = json.loads(job)
    data = Prepared(Path(spec["prepared"]))
    facts = {
        "num_users": 1,
        "num_items": data.num_items,
        "rating_range": data.rating_range,
        "task": spec["task"],
    }
    model = build("model", spec["model"], **facts)
    shared_names = model.shared_names() if spec["shares"] else []
    kept = [name for name, _ in model.named_parameters() if name not in set(shared_names)]
    seed = spec["seed"]
    engine = choose_engine(
        model,
        build("training", spec["training"]),
        task=spec["task"],
        negatives=spec["negatives"],
        num_items=data.num_items,
        seed=seed,
    )
    store = ClientStore(Path(spec["store"]), model, kept, data.client_offsets, seed)
    evaluator = build("evaluation", spec["evaluation"], **facts)
    privacy = build("privacy", spec["privacy"])
    return Node(data, model, engine, evaluator, privacy, store, shared_names, seed)
