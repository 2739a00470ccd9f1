"""The same configuration is the same run, to the byte."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedrec_flower.cli import compose
from fedrec_flower.experiment import run
from fedrec_flower.results import RunFolder

if TYPE_CHECKING:
    from tests.conftest import Federate


def rounds(folder: Path, cache: Path, *overrides: str) -> bytes:
    """Run an experiment, figures and all; gives its rounds.csv."""
    small = (
        "dataset=synthetic",
        "dataset.num_users=20",
        "dataset.num_items=40",
        "dataset.num_interactions=250",
        f"dataset.cache_dir={cache}",
        "federation=in_process",
        "evaluation.num_negatives=9",
        "evaluation.every=1",
        "clients_per_round=7",
        "num_rounds=2",
    )
    config, _ = compose([*small, *overrides])
    run(config, RunFolder.create(folder))
    return (folder / "rounds.csv").read_bytes()


def test_the_same_seed_writes_the_same_rounds_and_another_seed_others(tmp_path: Path) -> None:
    caches = [tmp_path / "cache", tmp_path / "another cache"]  # prepared anew
    one, again = (rounds(tmp_path / cache.name[:3], cache) for cache in caches)
    assert one == again
    assert len(one.splitlines()) > 1 + 2 + 3 * 2 * 8
    assert rounds(tmp_path / "other", caches[0], "seed=2") != one


@pytest.mark.parametrize("before", ["numpy", "torch", "random"])
def test_no_global_generator_is_listened_to(federate: "Federate", before: str) -> None:
    import random

    import torch

    one = federate("model=ncf")
    {"numpy": np.random.seed, "torch": torch.manual_seed, "random": random.seed}[before](99)  # noqa: NPY002  # on purpose
    assert federate("model=ncf").metric_table() == one.metric_table()
