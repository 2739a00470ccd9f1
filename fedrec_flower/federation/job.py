"""The job that the server sends to all nodes, and the paths and settings of a single node."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fedrec_flower.communication.limits import Limits
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Config

_Record = TypeVar("_Record")
_STRICT = ConfigDict(extra="forbid", strict=True)  # both are read from messages


@dataclass(frozen=True, slots=True)
class NodeJob:
    """Everything that a node must know of a run. It names no path and no secret of a node.

    Attributes:
        model: configuration of the recommender.
        training: configuration of local training.
        evaluation: configuration of the evaluation.
        privacy: configuration of the privacy mechanism, with all values resolved.
        compression: configuration of the compression.
        secure_aggregation: configuration of secure aggregation.
        faults: configuration of simulated faults.
        attack: configuration of the attack.
        task: "ranking" or "rating".
        negatives: the pool that negative samples are drawn from.
        seed: the experiment's seed.
        randomness: "seeded": clients draw from the seed. Any other value: from a node's secret.
        num_rounds: number of training rounds.
        freeze: parameters that are not trained; see `Recommender.freeze`.
        finetune_epochs: local epochs before a client is evaluated.
        limits: limits of a valid update.
        data: digest of the prepared data, which must be equal on the server and all nodes.
        run: name of the run. A deployed node keeps a run's state under it, also after an
            interruption.
        session: identifier of this start of the run. A node keeps a job open, so a run folder that
            was removed and reused must be a different job.
        deployed: whether the server is that of a deployment.
        communicates: whether parameters travel; see `FederatedStrategy.communicates`.
        individual_updates: whether each client's update is sent, and not only their sum; see
            `FederatedStrategy.needs_individual_updates`.
        local: configuration of the strategy's local update rule; empty for plain training.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    model: Config
    training: Config
    evaluation: Config
    privacy: Config
    compression: Config
    secure_aggregation: Config
    faults: Config
    attack: Config
    task: str
    negatives: str
    seed: int
    randomness: str
    num_rounds: int
    freeze: Sequence[str]
    finetune_epochs: int
    limits: Limits
    data: str
    run: str
    session: str
    deployed: bool = False
    communicates: bool = True
    individual_updates: bool = False
    local: Config = field(default_factory=dict)

    @property
    def is_seeded(self) -> bool:
        """Whether clients draw from the experiment's seed, which the server knows."""
        return self.randomness == "seeded"

    def to_json(self) -> str:
        """Return the job as JSON, as messages carry it."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "NodeJob":
        """Read and validate a job.

        Raises:
            ConfigError: names a field that is missing, unknown or has a wrong type.
        """
        return _read(_JOB, "job", text)


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Paths and settings of a node. In a deployment they come from the node's owner only.

    In a simulation, the server and the nodes share a machine, and messages carry the two paths.

    Attributes:
        prepared: folder of the prepared data.
        store: folder of the clients' personal state.
        secret_folder: folder of the secret that a deployed node uses for all its runs; empty for
            `store`.
        deployed: whether the node belongs to a deployment.
        max_answers: how often each client may answer in the run; None for no limit.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    prepared: str
    store: str
    secret_folder: str = ""
    deployed: bool = False
    max_answers: int | None = None

    def to_json(self) -> str:
        """Return the place as JSON, as the messages of a simulation carry it."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "NodePlace":
        """Read and validate a place.

        Raises:
            ConfigError: names a field that is missing, unknown or has a wrong type.
        """
        return _read(_PLACE, "place", text)


def _read(adapter: TypeAdapter[_Record], name: str, text: str) -> _Record:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise ConfigError(
            f"{where} in a message is not valid ({first['msg']}): run the same version of the "
            "code on the server and on the nodes"
        ) from error


_JOB = TypeAdapter(NodeJob)
_PLACE = TypeAdapter(NodePlace)
