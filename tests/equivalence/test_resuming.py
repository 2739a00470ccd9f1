"""A run that goes on from a checkpoint is the run that was never interrupted, to the last bit."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.experiment.composition import CONF
from fedrec_flower.experiment.run_folder import RunFolder

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
AT, LAST = 2, 4
SMALL = (
    f"checkpoint_every={AT}",
    f"num_rounds={LAST}",
    "clients_per_round=10",
    "evaluation.num_clients=12",
)


def resumed(federate: "Federate", folder: Path, *words: str) -> "tuple[Federated, Federated]":
    """A whole run, and one that goes on in a folder that holds its first checkpoint."""
    whole = federate(*SMALL, *words)
    shutil.copytree(whole.store, folder / "clients")
    (folder / "rounds.csv").touch()
    checkpoint = whole.watcher.checkpoints[0]
    assert checkpoint.round == AT
    RunFolder(folder).checkpoints.write(checkpoint)
    return whole, federate(*SMALL, *words, folder=folder)


def require_same(whole: "Federated", rest: "Federated") -> None:
    """Nothing that a run leaves behind tells the two apart."""
    assert (whole.watcher.began_after, rest.watcher.began_after) == (0, AT)
    later = [round_ for round_ in whole.watcher.losses if round_ > AT]
    assert list(rest.watcher.losses) == later
    ours, theirs = ([ran.watcher.losses[r] for r in later] for ran in (whole, rest))
    assert_array_equal(ours, theirs)  # of an exact model they are not numbers
    assert rest.metric_table() == {k: v for k, v in whole.metric_table().items() if k[0] > AT}
    for kind in ("shared", "personal"):
        one, other = getattr(whole, kind), getattr(rest, kind)
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_array_equal(value, other[name])
    ended, again = whole.outcome, rest.outcome
    assert_array_equal(ended.rounds_participated, again.rounds_participated)
    assert (ended.bytes_up, ended.failures) == (again.bytes_up, again.failures)
    assert ended.privacy == again.privacy
    assert ended.best_test == again.best_test
    assert ended.selected.facts() == again.selected.facts()
    for name, value in ended.selected.parameters.items():
        assert_array_equal(value, again.selected.parameters[name])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_on_as_if_nothing_had_happened(
    federate: "Federate", tmp_path: Path, strategy: str
) -> None:
    model = "ials" if strategy == "sums" else "mf"
    require_same(*resumed(federate, tmp_path, f"strategy={strategy}", f"model={model}"))


_PRIVATE = ("model=mf", "strategy.aggregation=all_clients")


# Whose clients keep tuned copies, whose head travels, what is solved, what keeps histories; groups
# that were found, messages that owe; what keeps account of privacy, and bounds that adapt.
@pytest.mark.parametrize(
    "words",
    [
        ("model=pfedrec", "model.score_with=own"),
        ("model=ncf",),
        ("model=ease", "strategy=sums"),
        ("model=fedrap",),
        ("model=sasrec",),
        ("model=mf", "strategy=clustered", "strategy.cluster_at=1"),
        ("model=mf", "compression=topk"),
        ("model=mf", "compression=lowrank"),
        (*_PRIVATE, "privacy=central_dp", "privacy.adaptive_clipping=true"),
        (*_PRIVATE, "privacy=local_dp"),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("every", [1, 3])  # checkpoints at evaluations, and between them
def test_every_kind_of_model_goes_on_as_if_nothing_had_happened(
    federate: "Federate", tmp_path: Path, words: tuple[str, ...], every: int
) -> None:
    require_same(*resumed(federate, tmp_path, *words, f"evaluation.every={every}"))


def test_whoever_hosts_the_clients_they_go_on(federate: "Federate", tmp_path: Path) -> None:
    words = ("strategy=fedadam", "federation.num_nodes=3")
    require_same(*resumed(federate, tmp_path, *words))


def test_without_its_state_a_strategy_would_go_on_otherwise(
    federate: "Federate", tmp_path: Path
) -> None:
    """Or the laws above could not fail."""
    whole = federate(*SMALL, "strategy=fedadam")
    shutil.copytree(whole.store, tmp_path / "clients")
    (tmp_path / "rounds.csv").touch()
    first = whole.watcher.checkpoints[0]
    poorer = {n: v for n, v in first.arrays.items() if not n.startswith("state/")}
    RunFolder(tmp_path).checkpoints.write(replace(first, arrays=poorer))
    rest = federate(*SMALL, "strategy=fedadam", folder=tmp_path)
    assert any(not np.array_equal(v, rest.shared[n]) for n, v in whole.shared.items())


@pytest.mark.parametrize("patience", [1, 2])
def test_a_run_ends_when_validation_has_waited_long_enough(
    federate: "Federate", patience: int
) -> None:
    words = ("num_rounds=40", "evaluation.every=2", "training.learning_rate=3.0")
    whole, stopped = federate(*words), federate(*words, f"patience={patience}")
    evaluated = list(stopped.watcher.metrics)
    best = stopped.outcome.selected.round
    assert stopped.outcome.stopped_at == evaluated[-1] == best + 2 * patience
    assert whole.outcome.stopped_at is None
    assert evaluated[-1] < 40
    assert stopped.metric_table() == {
        key: value for key, value in whole.metric_table().items() if key[0] in evaluated
    }


def test_checkpoints_are_as_far_apart_as_asked_and_one_is_at_the_end(
    federate: "Federate",
) -> None:
    def rounds(*words: str) -> list[int]:
        ran = federate("num_rounds=7", "clients_per_round=4", *words)
        return [checkpoint.round for checkpoint in ran.watcher.checkpoints]

    assert rounds("checkpoint_every=2") == [2, 4, 6, 7]
    assert rounds("checkpoint_every=7") == [7]
    assert rounds("checkpoint_every=null") == []
