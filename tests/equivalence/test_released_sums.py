"""Sums under secure aggregation: their leakage, and at most one released sum of a client per round.

The server of these tests stores every sum that it can unmask.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import Message

from fedrec_flower.communication.secure_aggregation.messages import StageRequest
from fedrec_flower.communication.secure_aggregation.quantization import CohortSum
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.communication.secure_aggregation.server import Coordinator
from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.server.secure_round import SecAggRound
from tests.helpers.federations import Tap
from tests.helpers.interrupted_runs import require_same
from tests.helpers.secure_runs import NODES, SECURE, falling_silent, stage_of, stages

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

SHIPPED = ("secure_aggregation=secagg",)
FEW = ("dataset.num_users=12", "dataset.num_interactions=200", "num_rounds=1")
EACH_ALONE = (*FEW, "federation.num_nodes=12")  # a client a node
FOR_ONE = (*SHIPPED, "secure_aggregation.num_neighbours=null", *EACH_ALONE)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[CohortSum]:
    """Every sum that the server has unmasked and read."""
    read, sums = SecAgg.dequantize_sum, list[CohortSum]()

    def keep(*arguments: Any) -> CohortSum:
        sums.append(read(*arguments))
        return sums[-1]

    monkeypatch.setattr(SecAgg, "dequantize_sum", keep)
    return sums


# --- two sums of a round ------------------------------------------------------------------------


def test_a_retried_round_releases_no_two_sums_that_differ_by_a_client(
    federate: "Federate", released: list[CohortSum]
) -> None:
    """No two sums of the same parameters are released.

    A node was silent once, and the sum without it was thrown away after it was unmasked.
    """
    words = ("model=popularity", "strategy=sums", *FOR_ONE, "min_completion=1.0")
    ran = federate(*words, meddle=falling_silent("mask", {8}, rounds=1))
    assert ran.watcher.more == {1: {"attempts": 2.0}}
    own = ran.setup.data.client(7).train.item
    whole, *parts = (one.total.tensors["num_users_of_item"] for one in reversed(released))
    for part in parts:  # the attack
        assert not np.array_equal(np.flatnonzero(whole - part), np.sort(own))
    assert [total.replied for total in released] == [12]


def test_a_client_whose_share_was_revealed_does_not_answer_the_round_again(
    federate: "Federate", released: list[CohortSum]
) -> None:
    """No two sums of the same parameters are released.

    The shares came too late for the server's patience, which its curiosity does not mind.
    """
    late = falling_silent("unmask", set(range(1, 13)), rounds=1)
    with pytest.raises(TrainingError, match=r"12 answered.*do not answer it again"):
        federate(*FOR_ONE, "max_retries=1", meddle=late)
    assert released == []


def test_clients_that_are_in_no_sum_yet_take_the_place_of_those_that_are(
    federate: "Federate", released: list[CohortSum]
) -> None:
    """No two sums of the same parameters are released."""
    words = ("clients_per_round=6", "min_completion=0.4", "secure_aggregation.min_clients=2")
    late = falling_silent("unmask", set(range(1, 13)), rounds=1)
    ran = federate(*FOR_ONE, *words, meddle=late)
    parts = [message for stage, message in stages(ran) if stage == "mask"]
    counts = [int(part.content.config_records["said"]["replied"]) for part in parts]  # type: ignore[arg-type]  # the client packs integers
    first = {part.metadata.src_node_id for part in parts[:6]}
    again = {part.metadata.src_node_id for part, n in zip(parts, counts, strict=True) if n} - first
    assert counts[:6] == [1] * 6
    assert [total.replied for total in released] == [len(again)]
    assert ran.watcher.lost[1]["answered"] == 6 - ran.watcher.replied[1]


def test_an_invalid_released_sum_is_not_requested_again(
    federate: "Federate", released: list[CohortSum], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two sums of the same parameters are released."""
    unmask = Coordinator.unmask

    def garbled(*arguments: Any) -> Any:
        return unmask(*arguments) + np.uint32(1 << 30)

    monkeypatch.setattr(Coordinator, "unmask", garbled)
    with pytest.raises(TrainingError, match=r"12 answered.*12 malformed|12 malformed.*answered"):
        federate(*FOR_ONE, "max_retries=1")
    assert len(released) == 1


@pytest.mark.parametrize("stage", ["share", "mask", "unmask"])
def test_a_session_is_bound_to_its_job(
    federate: "Federate", released: list[CohortSum], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Nodes revealed shares by the rules of a job that only the last request named."""
    honest = SecAggRound._message

    def of_another_job(session: SecAggRound, place: int, request: StageRequest) -> Message:
        message = honest(session, place, request)
        config = message.content.config_records["config"]
        job = json.loads(str(config["job"]))
        assert job["secure_aggregation"]["min_clients"] == 10
        if request.stage == stage:
            config["job"] = json.dumps(job | {"run": "decoy"})
        return message

    monkeypatch.setattr(SecAggRound, "_message", of_another_job)
    with pytest.raises(TrainingError, match=f"stage {stage} is asked for by another job"):
        federate(*FOR_ONE, "max_retries=0")
    assert released == []


# --- a run that is killed and resumed -----------------------------------------------------------

SMALL = (
    *("federation=in_process", "dataset=synthetic", "dataset.num_users=24"),
    *("dataset.num_items=60", "dataset.num_interactions=400", "dataset.min_per_user=8"),
    *("model.embedding_dim=8", "strategy=fedadam", "evaluation.num_negatives=20"),
    *("evaluation.metrics=[hr@10,ndcg@10]", "num_rounds=4", "clients_per_round=null"),
    *("evaluation.every=2", "federation.num_nodes=6", *SHIPPED),
)


class Killed:
    """Ctrl-C where a round has come to: a stage of secure aggregation, or "evaluate"."""

    def __init__(self, round_: int, where: str) -> None:
        self.at = (str(round_), where)

    def __call__(self, asked: list[Message], replies: list[Message]) -> list[Message]:
        kind = stage_of(asked) or asked[0].metadata.message_type
        if (asked[0].metadata.group_id, kind) == self.at:
            raise KeyboardInterrupt
        return replies


def killed(words: list[str], folder: Path, at: Killed) -> None:
    config, _ = compose(words)
    with pytest.raises(KeyboardInterrupt):
        run(config, RunFolder.create(folder, "seed: 1\n"), Tap(6, at))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*SMALL, f"dataset.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}"]


def test_a_resumed_run_releases_no_second_sum_of_a_round(
    words: list[str], tmp_path: Path, released: list[CohortSum]
) -> None:
    """Round 2 was complete except for its evaluation; when it is done again a node is silent."""
    killed(words, tmp_path / "run", Killed(2, "evaluate"))
    assert len(released) == 2
    config, _ = compose(words)
    silent = falling_silent("mask", {2})
    with pytest.raises(TrainingError, match=r"round 2: .*do not answer it again"):
        run(config, RunFolder(tmp_path / "run"), Tap(6, silent))
    assert len(released) == 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["advertise", "mask"])
def test_a_run_resumes_if_its_last_round_released_no_sum(
    words: list[str], tmp_path: Path, stage: str
) -> None:
    """No two sums of the same parameters are released.

    However rarely checkpoints were asked for: no round that was released is done again.
    """
    killed(words, tmp_path / "run", Killed(4, stage))
    config, _ = compose(words)
    run(config, RunFolder(tmp_path / "run"))
    run(config, RunFolder.create(tmp_path / "whole", "seed: 1\n"))
    require_same(tmp_path / "whole", tmp_path / "run")


# --- leakage of one sum -------------------------------------------------------------------------


@pytest.mark.parametrize(("aggregation", "num_rows"), [("all_clients", 0), ("touched_clients", 60)])
def test_row_weights_are_sent_only_if_they_are_used(
    federate: "Federate", released: list[CohortSum], aggregation: str, num_rows: int
) -> None:
    """Weights that travel under secure aggregation name no client."""
    words = (*NODES, *SHIPPED, "num_rounds=1", f"strategy.aggregation={aggregation}")
    ran = federate(*words)
    model = ran.setup.model
    size = sum(model.get_parameter(name).numel() for name in model.shared_names())
    vectors = [
        reply.content.array_records["masked"]["vector"].numpy()
        for stage, reply in stages(ran)
        if stage == "mask"
    ]
    assert {len(vector) for vector in vectors} == {size + num_rows + 4}
    assert released[0].total.row_weight.shape == (num_rows,)


@pytest.mark.parametrize(("weights", "named"), [((), False), (("examples",), True)])
def test_the_weight_of_a_row_identifies_no_client(
    federate: "Federate", released: list[CohortSum], weights: tuple[str, ...], named: object
) -> None:
    """The weight of a row that one client touched was its number of interactions."""
    chosen = [f"secure_aggregation.weights={choice}" for choice in weights]
    words = ("dataset.num_items=2000", "training.num_negatives=1", "num_rounds=1")
    data = federate(*SHIPPED, *words, *chosen, "federation.num_nodes=4").setup.data
    owners = [data.client(client).train.item for client in range(data.num_clients)]
    items, count = np.unique(np.concatenate(owners), return_counts=True)
    alone = items[count == 1]
    owner = np.array([next(c for c, own in enumerate(owners) if item in own) for item in alone])
    found = released[0].total.row_weight[alone] == data.num_examples[owner]  # the attack
    assert bool(found.mean() > 0.6) == named


@pytest.mark.parametrize("weights", ["powers", "equal"])
def test_the_weight_of_a_cohort_is_no_sum_of_activities(
    federate: "Federate", released: list[CohortSum], weights: str
) -> None:
    """Weights that travel under secure aggregation name no client."""
    words = (*NODES, *SHIPPED, "num_rounds=1", "clients_per_round=24")
    examples = federate(*words, f"secure_aggregation.weights={weights}").setup.data.num_examples
    powers = np.minimum(2 ** np.ceil(np.log2(examples)), examples.max())
    assert released[0].total.weight == {"equal": 24, "powers": powers.sum()}[weights]


def test_sums_of_statistics_do_not_reveal_numbers_of_interactions(
    federate: "Federate", released: list[CohortSum]
) -> None:
    """Weights that travel under secure aggregation name no client."""
    ran = federate("model=ease", *SHIPPED, "federation.num_nodes=4", "num_rounds=1")
    assert released[0].total.weight == 24 * ran.setup.data.most_examples


# --- sums over few ------------------------------------------------------------------------------


def test_a_sum_over_a_single_client_is_not_released(
    federate: "Federate", released: list[CohortSum]
) -> None:
    """A sum is released over min_clients clients or more.

    Of 48 sums five held one client: nodes were counted, and most of their clients were away.
    """
    away = ("faults=custom", "faults.dropout=0.8", "min_completion=0.0")
    ran = federate(*SHIPPED, *away, "federation.num_nodes=4", "num_rounds=8", "evaluation.every=8")
    assert released == []
    assert set(ran.watcher.replied.values()) == {0}
    some = (*away[:1], "faults.dropout=0.55", *away[2:])
    ran = federate(*SHIPPED, *some, "federation.num_nodes=4", "num_rounds=8", "evaluation.every=8")
    assert released
    assert min(total.replied for total in released) >= 10
    assert ran.outcome.failures["too_few_clients"]


def test_clients_left_out_of_a_sum_that_was_not_released_are_counted(
    federate: "Federate",
) -> None:
    """A sum is released over min_clients clients or more."""
    few = falling_silent("mask", {1, 2})
    words = (*NODES, *SECURE, "num_rounds=1", "min_completion=0.8", "max_retries=0")
    with pytest.raises(TrainingError, match=r"8 silent, 10 too_few_clients"):
        federate(*words, meddle=few)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            ("clients_per_round=9", "federation.num_nodes=4"),
            "min_clients=10 is more than the 9 clients of a round",
        ),
        (
            ("secure_aggregation.num_neighbours=2", "federation.num_nodes=24"),
            "min_clients=10 is more than the 3 clients that a node and its neighbours",
        ),
    ],
)
def test_rounds_that_cannot_release_a_sum_are_rejected(
    federate: "Federate", settings: tuple[str, ...], complaint: str
) -> None:
    """A sum is released over min_clients clients or more."""
    with pytest.raises(ConfigError, match=complaint):
        federate(*SHIPPED, *settings, "num_rounds=0")


# --- noise --------------------------------------------------------------------------------------


def test_central_noise_reserves_no_room_for_weights_that_are_one(federate: "Federate") -> None:
    """No room is reserved for weights that are fixed at 1."""
    private = (
        *("privacy=central_dp", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0"),
        *("strategy.aggregation=all_clients", "min_completion=0", "num_rounds=0"),
    )
    secure = (*SHIPPED, "secure_aggregation.clip_range=10000", "federation.num_nodes=4")
    plain, masked = (federate(*private, *words) for words in ((), secure))
    before, after = (
        ran.setup.privacy_setup.server_mechanism().noise_std for ran in (plain, masked)
    )
    assert before < after < 1.02 * before
