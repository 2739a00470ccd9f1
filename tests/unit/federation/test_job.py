"""The job and the place of a node survive JSON, and an invalid one is rejected with its field."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from fedrec_flower.communication.limits import Limits
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.federation.job import NodeJob, NodePlace

JOB = NodeJob(
    model={"_target_": "fedrec_flower.models.MF", "embedding_dim": 4, "init_std": 0.1},
    training={},
    evaluation={"metrics": ["hr@5"], "num_clients": None},
    privacy={},
    compression={},
    secure_aggregation={},
    faults={},
    attack={},
    task="ranking",
    negatives="honest",
    seed=1,
    randomness="seeded",
    num_rounds=3,
    freeze=["user_"],
    finetune_epochs=0,
    limits=Limits(weight=20, value=1e6),
    data="0123",
    run="a",
    session="b",
)
PLACE = NodePlace(prepared="/data", store="/store")


def test_job_equals_itself_after_json() -> None:
    assert NodeJob.from_json(JOB.to_json()) == JOB


def test_place_equals_itself_after_json() -> None:
    assert NodePlace.from_json(PLACE.to_json()) == PLACE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_rounds": "3"}, "job.num_rounds"),
        ({"seed": 1.5}, "job.seed"),
        ({"limits": {"weight": 1.0}}, "job.limits.value"),
        ({"store": "/elsewhere"}, "job.store"),
        ({"max_answers": 10**9}, "job.max_answers"),
    ],
)
def test_job_with_an_invalid_field_names_it(changes: dict[str, Any], field: str) -> None:
    text = json.dumps(asdict(JOB) | changes)
    with pytest.raises(ConfigError, match=rf"{field} in a message is not valid"):
        NodeJob.from_json(text)


def test_job_without_a_field_names_it() -> None:
    fields = asdict(JOB)
    del fields["privacy"]
    with pytest.raises(ConfigError, match=r"job\.privacy in a message is not valid"):
        NodeJob.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "no JSON"])
def test_text_that_is_no_job_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="job in a message is not valid"):
        NodeJob.from_json(text)
