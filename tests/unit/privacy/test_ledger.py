"""Laws of the privacy account of interrupted runs and of initial models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fedrec_flower.core.errors import ConfigError, DataError, TrainingError
from fedrec_flower.experiment.resume import resume
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.transfer import SavedModel
from fedrec_flower.privacy.accounting import epsilon_of
from fedrec_flower.privacy.gaussian import CentralDPServer
from fedrec_flower.privacy.ledger import LEDGER, Ledger
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.noise import NoiseSource
from tests.helpers.federations import Tap, _configured, _defaults
from tests.unit.privacy.test_central import RUN

CONFIGURATION = "seed: 1\n"
ROUNDS = ("num_rounds=6", "checkpoint_every=2", "evaluation.every=2", "clients_per_round=6")
MF = ("model=mf", "strategy.aggregation=all_clients", "privacy.clip_norm=0.1", *ROUNDS)
NOISE = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "privacy.delta=0.001")
CENTRAL = ("privacy=central_dp", "min_completion=0.0", *MF)
LOCAL = ("privacy=local_dp", *MF)
EXACT = ("model=popularity", "privacy=central_dp", "min_completion=0.0", "num_rounds=1")

Begin = Callable[..., dict[str, Any]]


class Killed:
    """Ends the process, as it were, at the request to train of a round; earlier rounds pass."""

    def __init__(self, round_: int | None) -> None:
        self.round = round_

    def __call__(self, asked: list[Message], replies: list[Message]) -> list[Message]:
        """See `federations.Meddle`."""
        for message in asked:
            if message.metadata.message_type.startswith("train"):
                about = message.content.config_records["config"]
                if about.get("round") == self.round is not None:
                    raise KeyboardInterrupt
        return replies


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Runs in one folder, with new noise: starts, and resumes a killed process."""
    monkeypatch.setattr(
        "fedrec_flower.experiment.artifacts._draw", lambda *_: None
    )  # figures take seconds

    def begin(
        *words: str, killed_in: int | None = None, name: str = "run", nodes: int = 1
    ) -> dict[str, Any]:
        folder, cache = tmp_path / name, f"dataset.cache_dir={tmp_path / 'cache'}"
        config = _configured([*_defaults(words), cache, "randomness=private", *words])
        taken = resume(folder, CONFIGURATION)
        assert taken is not None
        (folder / "config.yaml").write_text(CONFIGURATION)
        return run(config | {"overrides": []}, taken, Tap(nodes, Killed(killed_in)))

    return begin


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of all releases that are made."""
    rounds: list[int] = []
    original = CentralDPServer.release

    def release(self: CentralDPServer, total: Any, shapes: Any, round_: int) -> Any:
        rounds.append(round_)
        return original(self, total, shapes, round_)

    monkeypatch.setattr(CentralDPServer, "release", release)
    return rounds


def test_a_resumed_deployment_counts_releases_after_its_checkpoint(
    deployed: Begin, released: list[int], tmp_path: Path
) -> None:
    for round_ in (4, 6):  # rounds 3 and 5 were released, and no checkpoint has them
        with pytest.raises(KeyboardInterrupt):
            deployed(*CENTRAL, *NOISE, killed_in=round_)
    summary = deployed(*CENTRAL, *NOISE)
    assert released == [1, 2, 3, 3, 4, 5, 5, 6]
    assert summary["privacy"]["num_releases"] == len(released)
    assert summary["epsilon"] == epsilon_of(((1.0, 6 / 24, len(released)),), 1e-3)
    assert (tmp_path / "run" / LEDGER).stat().st_mode & 0o777 == 0o600


def test_a_release_is_counted_before_its_noise_is_drawn(
    deployed: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def stream(self: Any, *role: Any) -> Any:
        if role[0].startswith("privacy-noise"):
            account = json.loads((tmp_path / "run" / LEDGER).read_text())
            seen.append(int(account["history"][0][2]))
            raise KeyboardInterrupt
        return original(self, *role)

    original = NoiseSource.stream
    monkeypatch.setattr(NoiseSource, "stream", stream)
    with pytest.raises(KeyboardInterrupt):
        deployed(*CENTRAL, *NOISE)
    assert seen == [1]


def test_a_new_run_in_the_same_folder_counts_earlier_releases(
    deployed: Begin, released: list[int]
) -> None:
    words = (*CENTRAL, *NOISE, "checkpoint_every=null")
    with pytest.raises(KeyboardInterrupt):
        deployed(*words, killed_in=3)
    assert deployed(*words)["privacy"]["num_releases"] == len(released) == 2 + 6


def test_a_run_ends_when_interruptions_have_used_its_budget(
    deployed: Begin, released: list[int]
) -> None:
    words = (*CENTRAL, "privacy.target_epsilon=4.0")
    with pytest.raises(KeyboardInterrupt):
        deployed(*words, killed_in=4)
    summary = deployed(*words)
    assert released == [1, 2, 3, 3, 4, 5]
    assert summary["stopped_at"] == summary["selected_round"] == 5
    assert 3.5 < summary["epsilon"] <= 4.0


def test_an_exhausted_budget_is_reported(deployed: Begin) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedrec_flower.models.popularity.Popularity.solve", _fails)
        with pytest.raises(TrainingError, match="the process ends here"):
            deployed(*EXACT)
    with pytest.raises(TrainingError, match=r"target_epsilon is spent .* checkpoint_every=1"):
        deployed(*EXACT)


def _fails(*_: Any) -> Any:
    raise TrainingError("the process ends here")


def test_a_resumed_deployment_counts_every_message_of_each_client(
    deployed: Begin, tmp_path: Path
) -> None:
    words = (*LOCAL, *NOISE, "clients_per_round=null")
    with pytest.raises(KeyboardInterrupt):
        deployed(*words, killed_in=4)  # whose clients have answered when it ends
    summary = deployed(*words)
    assert summary["privacy"]["most_messages_of_a_client"] == 8  # 3 and 4 twice
    assert summary["epsilon"] == epsilon_of(((1.0 / 2, 1.0, 8),), 1e-3)
    account = json.loads((tmp_path / "run" / LEDGER).read_text())
    assert account == {"participated": [8] * 24}


def test_no_client_is_sampled_beyond_its_budget(deployed: Begin) -> None:
    words = (*LOCAL, "privacy.target_epsilon=4.0", "clients_per_round=null")
    with pytest.raises(KeyboardInterrupt):
        deployed(*words, killed_in=4)
    summary = deployed(*words)
    assert summary["stopped_at"] == 4
    assert summary["epsilon"] <= 4.0


def test_a_client_without_budget_is_not_in_a_cohort() -> None:
    privacy = LocalDP("gaussian", 1.0, "flat", 1.0, None, 1e-3, "user")
    keeper = privacy.server_mechanism(RUN, NoiseSource(1), Ledger(budget=8.0))
    for _ in range(RUN.num_rounds):
        assert keeper.cohort(np.arange(2), 1).tolist() == [0, 1]
    assert keeper.cohort(np.arange(4), 1).tolist() == [2, 3]
    assert not keeper.is_spent


def test_a_deployment_does_not_resume_without_its_ledger(deployed: Begin, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        deployed(*CENTRAL, *NOISE, killed_in=4)
    ledger = tmp_path / "run" / LEDGER
    ledger.write_text("{")
    with pytest.raises(DataError, match=r"privacy_ledger.json cannot be read .* new run"):
        deployed(*CENTRAL, *NOISE)
    ledger.unlink()
    with pytest.raises(DataError, match=r"privacy_ledger.json is missing"):
        deployed(*CENTRAL, *NOISE)


def test_an_initial_model_without_epsilon_is_rejected_under_privacy(
    deployed: Begin, tmp_path: Path
) -> None:
    deployed("model=mf", *ROUNDS, name="plain")
    start = f"init_from={tmp_path / 'plain'}"
    for words in ((*CENTRAL, *NOISE), (*LOCAL, *NOISE), (*CENTRAL, *NOISE, "freeze=[item]")):
        with pytest.raises(ConfigError, match=r"plain.* without a privacy guarantee.*init_from"):
            deployed(*words, start)
    nothing_promised = ("privacy.target_epsilon=null", "privacy.noise_multiplier=0.0")
    assert deployed(*CENTRAL, *nothing_promised, start)["epsilon"] == float("inf")


def test_the_epsilon_of_a_private_initial_model_is_added(deployed: Begin, tmp_path: Path) -> None:
    first = deployed(*CENTRAL, *NOISE, name="first")
    told = SavedModel.read(str(tmp_path / "first")).privacy
    assert told is not None
    assert (told["epsilon"], told["delta"]) == (first["epsilon"], 1e-3)
    start = f"init_from={tmp_path / 'first'}"
    second = deployed(*CENTRAL, *NOISE, start)
    assert second["epsilon"] == 2 * first["epsilon"]
    assert second["delta"] == 2e-3
    assert second["privacy"]["epsilon_of_init_from"] == first["epsilon"]
    rounds = RunFolder(tmp_path / "run").path / "rounds.csv"
    assert f"6,train,epsilon,{second['epsilon']!r}," in rounds.read_text()
    # A third run counts both.
    third = deployed(*CENTRAL, *NOISE, f"init_from={tmp_path / 'run'}", name="third")
    assert third["epsilon"] == 3 * first["epsilon"]
    with pytest.raises(ConfigError, match=r"different guarantees cannot be added"):
        deployed(*LOCAL, *NOISE, start, name="local")


MASKED = (
    *("secure_aggregation=secagg", "secure_aggregation.min_clients=2", "federation.num_nodes=4"),
    "clients_per_round=null",
)


def test_seeded_noise_is_not_reused_for_another_masked_sum_of_a_round(
    deployed: Begin, released: list[int]
) -> None:
    # A regression: clients that had replied were excluded, and the noise was the same.
    seeded, killed = (*CENTRAL, *NOISE, *MASKED, "randomness=seeded"), {"killed_in": 3, "nodes": 4}
    for more in ((), ("checkpoint_every=null",)):  # resumed, and started again in its folder
        name = f"seeded{len(more)}"
        with pytest.raises(KeyboardInterrupt):
            deployed(*seeded, *more, name=name, **killed)
        with pytest.raises(ConfigError, match=r"other clients.*randomness=private if it is to be"):
            deployed(*seeded, *more, name=name, nodes=4)
    assert released == [1, 2] * 2
    private = (*CENTRAL, *NOISE, *MASKED)
    with pytest.raises(KeyboardInterrupt):
        deployed(*private, **killed)
    assert deployed(*private, nodes=4)["privacy"]["num_releases"] == 6


def test_exceptions_of_the_initial_model_are_kept(deployed: Begin, tmp_path: Path) -> None:
    # Before, a source whose round was chosen by validation was added like any other.
    first = deployed(*CENTRAL, *NOISE, "release=validation", name="first")
    start = f"init_from={tmp_path / 'first'}"
    second = deployed(*CENTRAL, *NOISE, start, name="second")
    third = deployed(*CENTRAL, *NOISE, f"init_from={tmp_path / 'second'}", name="third")
    alone = deployed(*CENTRAL, *NOISE, name="alone")
    named, again, once_more, without = (
        set(ran["privacy"]["does_not_cover"]) for ran in (first, second, third, alone)
    )
    assert any("choice of the released round" in sentence for sentence in named)
    assert named <= again == once_more
    assert not named <= without
    assert len(second["privacy"]["does_not_cover"]) == len(again)  # each of them once


def test_a_seeded_initial_model_is_rejected_with_private_noise(
    deployed: Begin, tmp_path: Path
) -> None:
    deployed(*CENTRAL, *NOISE, "randomness=seeded", name="seeded")
    start = f"init_from={tmp_path / 'seeded'}"
    with pytest.raises(ConfigError, match=r"has seeded noise.*start from a run with randomness"):
        deployed(*CENTRAL, *NOISE, start)
    named = deployed(*CENTRAL, *NOISE, start, "randomness=seeded", name="other")["privacy"]
    assert any("knows the seed" in sentence for sentence in named["does_not_cover"])


def test_every_reported_epsilon_has_a_delta(deployed: Begin, tmp_path: Path) -> None:
    # Before, randomized response gave an epsilon alone.
    words = ("model=popularity", "privacy=randomized_response", "num_rounds=1")
    deployed(*words)
    assert "1,train,delta,0.0," in (tmp_path / "run" / "rounds.csv").read_text()
