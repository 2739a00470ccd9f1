"""Runs of the same configuration are equal to the byte."""

import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

SMALL = (
    "dataset=synthetic",
    "dataset.num_users=20",
    "dataset.num_items=40",
    "dataset.num_interactions=250",
    "federation=in_process",
    "evaluation.num_negatives=9",
    "evaluation.every=1",
    "clients_per_round=7",
    "num_rounds=2",
)


def test_equal_seeds_write_equal_rounds_to_the_byte(tmp_path: Path) -> None:
    written = []
    for name in ("one", "again"):
        cache = f"dataset.cache_dir={tmp_path / name / 'cache'}"  # the data are prepared again
        config, _ = compose([*SMALL, cache])
        run(config, RunFolder.create(tmp_path / name / "run"))
        written.append((tmp_path / name / "run" / "rounds.csv").read_bytes())
    assert written[0] == written[1]
    num_evaluations, num_metrics = 3 * 2, 8 * 2
    assert len(written[0].splitlines()) == 1 + 2 + num_evaluations * num_metrics


def test_seeds_determine_the_metrics(
    federate: "Federate",
) -> None:
    one, again, other = (federate("clients_per_round=7", f"seed={seed}") for seed in (1, 1, 2))
    assert one.metric_table() == again.metric_table()
    assert one.metric_table() != other.metric_table()


def test_global_random_generators_are_not_used(federate: "Federate") -> None:
    one = federate("model=ncf")
    for seed in (np.random.seed, torch.manual_seed, random.seed):
        seed(99)
    assert federate("model=ncf").metric_table() == one.metric_table()
