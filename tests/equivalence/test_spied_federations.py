"""Inference attacks on federations: the observed views, and an unchanged run."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.privacy_audit import TrainedRun, check_attack, run_inference
from fedrec_flower.experiment.run import run, run_quietly
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.shadow_federations import Shadows
from fedrec_flower.threats.likelihood import halves
from fedrec_flower.threats.membership_inference import claimed

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

SPY = "attack=interaction_inference"
READ = "attack.method=reading"
ALL = ("model=mf", "strategy.aggregation=all_clients")
SECRET = (*ALL, "secure_aggregation=secagg", "federation.num_nodes=5")
LOUD = ("privacy.target_epsilon=null", "privacy.noise_multiplier=10.0", "privacy.clip_norm=0.01")
CENTRAL = (*ALL, "privacy=central_dp", "min_completion=0.0", *LOUD)
LOCAL = (*ALL, "privacy=local_dp", *LOUD)


def target(ran: "Federated") -> TrainedRun:
    setup = ran.setup
    initial = setup.initial(ran.strategy)
    shadows = Shadows(ran.config, setup.data, run_quietly)
    return TrainedRun(
        setup.data, setup.privacy_setup, ran.server, ran.outcome, initial, ran.store, shadows
    )


def infer(ran: "Federated") -> dict[str, Any]:
    check_attack(ran.setup.attack, ran.server, ran.setup.data)
    return run_inference(ran.setup.attack, target(ran))["attack"]  # type: ignore[no-any-return]  # figures


# --- observed views -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["1", "last"])
@pytest.mark.parametrize("model", ["mf", "ncf", "lightgcn"])
def test_a_plain_message_reveals_the_clients_items(
    federate: "Federate", model: str, at: str
) -> None:
    found = infer(federate(f"model={model}", SPY, READ, f"attack.round={at}"))
    assert found["exposed"] == "update"
    assert found["auc"] == found["update/auc"] > 0.95
    assert found["advantage"] == pytest.approx(2 * found["auc"] - 1)
    assert found["precision"] > 0.6
    assert found["recall"] > 0.9
    assert found["sum/auc"] < found["update/auc"] - 0.2


@pytest.mark.parametrize("model", ["popularity", "ease", "ials"])
def test_statistics_of_one_client_reveal_all_its_items(federate: "Federate", model: str) -> None:
    found = infer(federate(f"model={model}", "num_rounds=1", SPY))
    assert (found["auc"], found["precision"], found["recall"]) == pytest.approx((1.0, 1.0, 1.0))
    assert found["sum/auc"] < 0.7


def test_the_mechanism_determines_the_exposed_view(federate: "Federate") -> None:
    ways = (SECRET, CENTRAL, LOCAL)
    secret, central, local = (infer(federate(*words, SPY, READ)) for words in ways)
    assert (secret["exposed"], secret["auc"]) == ("sum", secret["sum/auc"])
    assert (central["exposed"], central["auc"]) == ("release", central["release/auc"])
    assert (local["exposed"], local["auc"]) == ("update", local["update/auc"])
    # The noise is far above any message, so only views before the noise reveal items.
    assert central["update/auc"] > 0.9
    for found in (central, local):
        assert found["auc"] == pytest.approx(0.5, abs=0.12)


def test_pseudo_items_are_inferred_as_often_as_own_items(federate: "Federate") -> None:
    plain = infer(federate(*ALL, SPY, READ, "attack.round=1"))
    masked = infer(federate(*ALL, "privacy=pseudo_items", SPY, READ, "attack.round=1"))
    assert masked["recall"] > 0.9
    assert masked["precision"] == pytest.approx(plain["precision"] / 2, abs=0.1)


def test_messages_add_up_to_the_observed_sum(federate: "Federate") -> None:
    for words in (("model=mf",), ("model=ncf", "strategy=median"), ("model=ease", "num_rounds=1")):
        ran = federate(*words, SPY, "clients_per_round=7")
        with target(ran).replay_round("last", with_history=False) as played:
            total = played.whole.seen
            messages = [played.message(client) for client in played.cohort.tolist()]
            assert len(messages) == 7
            assert played.released is None
        for name, value in total.items():
            parts = [message[name] for message in messages if message is not None]
            assert_allclose(sum(parts), value, rtol=1e-4, atol=1e-5)


def test_the_replayed_first_round_equals_the_original(federate: "Federate") -> None:
    ran = federate("model=mf", SPY, "num_rounds=1", "evaluation.every=1", "clients_per_round=9")
    with target(ran).replay_round(1, with_history=False) as played:
        cohort, total = played.cohort, played.whole.seen
    assert_array_equal(cohort, np.flatnonzero(ran.outcome.rounds_participated))
    (reply,) = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    sent = reply.content.array_records["update"]["item_bias.weight"].numpy()
    told = total["item_bias.weight"]
    assert_allclose(np.sort(sent.ravel()), np.sort(told[told != 0]), rtol=1e-5, atol=1e-7)


def test_a_round_after_the_last_equals_the_next_round_of_a_longer_run(
    federate: "Federate",
) -> None:
    words = ("model=mf", SPY, "evaluation.every=2", "training.learning_rate=5.0")
    ran, longer = (federate(*words, f"num_rounds={rounds}") for rounds in (2, 3))
    assert ran.outcome.selected.round == 2  # the last round is released
    with target(ran).replay_round("last", with_history=False) as played:
        total = played.whole.seen
    *_, reply = [m for m in longer.tap.replies if m.metadata.message_type == "train"]
    sent = reply.content.array_records["update"]
    for name, value in total.items():
        assert_allclose(np.sum(sent[name].numpy(), 0), value.sum(axis=0), rtol=1e-4, atol=1e-5)


def test_the_release_is_the_sum_with_the_noise_of_the_mechanism(federate: "Federate") -> None:
    ran = federate(*CENTRAL, SPY)
    with target(ran).replay_round("last", with_history=False) as played:
        total, released = played.whole.seen, played.released
    assert released is not None
    noise = np.concatenate([(released.seen[name] - total[name]).ravel() for name in total])
    assert noise.std() == pytest.approx(10.0 * 0.01, rel=0.15)
    # A hair above: the noise also covers the rounding of sums to float32.
    assert 0.1 <= released.noise_std < 0.1 * (1 + 1e-5)


# --- many clients behind a sum ------------------------------------------------------------------

# Ten clients in a sum, with vectors of 16 dimensions.
WIDE = (
    *SECRET[1:],
    *("model=mf", "strategy=fedadam", "strategy.aggregation=touched_clients"),
    *("dataset.num_items=200", "dataset.num_interactions=700", "model.embedding_dim=16"),
    *("training.learning_rate=20.0", "training.batch_size=null", "training.local_epochs=2"),
    *("training.weight_decay=0.0001", "clients_per_round=10", "attack.method=strongest"),
)
WHOLE = ("clients_per_round=24", "model.embedding_dim=32")


@pytest.mark.parametrize("round_", ["1", "3", "last"])
def test_least_squares_solves_one_sum_with_the_seed(federate: "Federate", round_: str) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    solved = ("attack.method=least_squares", f"attack.round={round_}")
    for known, least in (("none", 0.8), ("activities", 0.9)):
        found = infer(federate(SPY, *WIDE, *WHOLE, *solved, f"attack.side_knowledge={known}"))
        assert (found["exposed"], found["method"]) == ("sum", "least_squares")
        assert found["auc"] == found["sum/least_squares/auc"] > least


def test_least_squares_does_not_solve_one_sum_with_secret_draws(federate: "Federate") -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    found = infer(federate(SPY, *WIDE, *WHOLE, "randomness=private", "attack.round=1"))
    assert "sum/least_squares/auc" not in found
    assert found["sum/auc"] < 0.65
    assert found["sum/auc"] < found["auc_of_counts"] + 0.05


def test_noise_on_the_sum_does_not_hide_it_from_the_server_that_adds_it(
    federate: "Federate",
) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    loud = ("privacy=central_dp", "min_completion=0.0", "privacy.sampling=fixed", *LOUD)
    wide = [word for word in WIDE if "aggregation=touched" not in word]
    solved = ("attack.method=least_squares", "attack.round=1", "strategy.aggregation=all_clients")
    found = infer(federate(SPY, *wide, *loud, *solved))
    assert found["exposed"] == "release"
    assert found["sum/least_squares/auc"] > 0.8
    assert found["release/least_squares/auc"] == pytest.approx(0.5, abs=0.1)


def test_the_strongest_view_of_all_sums_is_the_headline(
    federate: "Federate",
) -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    longer = ("num_rounds=6", "randomness=private", "attack.side_knowledge=activities")
    found = infer(federate(SPY, *WIDE, *longer))
    views = {"sum/auc", "sums/auc", "sums/regression/auc", "sums/separation/auc"}
    assert views <= found.keys()
    assert found["auc"] == max(found["sum/auc"], found["sums/auc"])
    assert found["sum/auc_anonymous"] > 0.5 < found["sum/auc_anonymous_chance"]


def test_the_sums_of_earlier_rounds_are_those_of_the_run(federate: "Federate") -> None:
    """Sums of one or many rounds are attacked by every applicable method."""
    ran = federate(SPY, "model=mf", "strategy=fedadam", "clients_per_round=9", "randomness=private")
    state = ran.strategy.state()
    with target(ran).replay_round(3, with_history=True) as played:
        sums = [*played.earlier, played.whole]
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    assert [each.round for each in sums] == [1, 2, 3]
    for each, reply in zip(sums, replies, strict=True):
        sent = reply.content.array_records["update"]["item_bias.weight"].numpy()
        told = each.seen["item_bias.weight"]
        assert_allclose(np.sort(sent.ravel()), np.sort(told[told != 0]), rtol=1e-4, atol=1e-6)
    for name, value in ran.strategy.state().items():
        assert_array_equal(value, state[name])


# --- the run is not changed ---------------------------------------------------------------------


def test_inference_does_not_change_a_run(tmp_path: Path) -> None:
    for name, words in (("plain", []), ("spied", [SPY])):
        overrides = ["experiment=smoke", *words, f"dataset.cache_dir={tmp_path / 'cache'}"]
        summary = run(compose(overrides)[0], RunFolder.create(tmp_path / name))
        assert ("attack" in summary) == bool(words)
    plain, looked_at = (tmp_path / name for name in ("plain", "spied"))
    for file in ("rounds.csv", "per_user.csv", "recommendations.csv", "model.safetensors"):
        assert (plain / file).read_bytes() == (looked_at / file).read_bytes()
    kept = [path.name for path in sorted((looked_at / "clients").iterdir())]
    assert kept == [path.name for path in sorted((plain / "clients").iterdir())]


def test_inference_does_not_change_the_spent_budget(federate: "Federate") -> None:
    ran = federate(*CENTRAL, SPY)
    before = ran.server.curator.facts()
    infer(ran)
    assert ran.server.curator.facts() == before


def test_inference_repeats_with_the_same_seed(federate: "Federate") -> None:
    one, duplicate = (infer(federate(*CENTRAL, SPY)) for _ in "ab")
    assert one == duplicate


def test_the_number_of_victims_is_limited(federate: "Federate") -> None:
    few = infer(federate("model=mf", SPY, READ, "attack.num_victims=3"))
    assert few["num_victims"] == 3
    assert infer(federate("model=mf", SPY, READ))["num_victims"] <= 24


def test_clients_that_send_nothing_are_no_victims(federate: "Federate") -> None:
    gone = ("faults=custom", "faults.dropout=1.0", "min_completion=0.0", "max_retries=0")
    found = infer(federate("model=mf", SPY, READ, *gone))
    assert (found["exposed"], found["num_victims"], found["bound"]) == ("update", 0, "lower")
    assert "auc" not in found


# --- membership ---------------------------------------------------------------------------------


MEMBERS = ("attack=membership_inference", "split=cold_users", "split.user_fraction=0.4")


def test_membership_inference_separates_members_of_an_overfitted_model(
    federate: "Federate",
) -> None:
    by_heart = ("model=mf", "model.embedding_dim=32", "num_rounds=10", "evaluation.every=10")
    rates = ("training.learning_rate=20.0", "training.batch_size=null", "training.weight_decay=0.0")
    longer = ("dataset.num_interactions=600", "dataset.num_items=120")
    found = infer(federate(*by_heart, *rates, *longer, *MEMBERS))
    assert (found["num_members"], found["num_strangers"]) == (15, 9)
    assert found["auc"] > 0.75
    assert found["auc_se"] > 0


FEW = (
    *("model=mf", "model.embedding_dim=16", "num_rounds=10", "evaluation.every=10"),
    *("training.batch_size=null", "training.weight_decay=0.0"),
    *("dataset.num_users=40", "dataset.num_interactions=600", "dataset.num_items=80"),
    *(*MEMBERS, "attack.method=shadow", "attack.num_shadows=6"),
)


def test_shadow_federations_separate_members_that_familiarity_does_not(
    federate: "Federate",
) -> None:
    """Membership inference calibrated by shadow federations."""
    found = infer(federate(*FEW, "training.learning_rate=20.0"))
    assert found["online/auc"] > found["familiarity/auc"] + 0.02
    ways = [found[f"{way}/auc"] for way in ("familiarity", "online", "offline", "centered")]
    assert found["auc"] == max(ways) == found[f"{found['strongest']}/auc"]
    assert found["advantage"] == pytest.approx(2 * found["auc"] - 1)
    assert (found["num_shadows"], found["num_members"], found["num_strangers"]) == (6, 24, 16)


def test_shadow_federations_give_chance_level_for_an_untrained_model(
    federate: "Federate",
) -> None:
    """Membership inference calibrated by shadow federations."""
    rates = ("training.learning_rate=0.0", "training.dense_learning_rate=0.0")
    many = ("dataset.num_users=200", "dataset.num_interactions=3000", "num_rounds=1")
    found = infer(federate(*FEW, *rates, *many, "attack.num_shadows=4"))
    for way in ("familiarity", "online", "offline", "centered"):
        assert abs(found[f"{way}/auc"] - 0.5) < 2 * found[f"{way}/auc_se"] < 0.1


@pytest.mark.slow
def test_shadow_federations_do_not_change_a_run_and_are_in_its_summary(
    tmp_path: Path,
) -> None:
    """Membership inference calibrated by shadow federations."""
    data = ("dataset=synthetic", "dataset.num_users=20", "dataset.num_items=40")
    small = (*data, "dataset.num_interactions=250", "evaluation.num_negatives=9", "num_rounds=2")
    fast = ("federation=in_process", "model=mf", "model.embedding_dim=8", *MEMBERS[1:])
    shadow = ("attack=membership_inference", "attack.method=shadow", "attack.num_shadows=4")
    for name, words in (("plain", ()), ("attacked", shadow)):
        overrides = [*small, *fast, *words, f"dataset.cache_dir={tmp_path / 'cache'}"]
        summary = run(compose(overrides)[0], RunFolder.create(tmp_path / name))
    assert summary["attack"]["num_shadows"] == 4
    assert summary["attack"]["bound"] == "lower"
    for file in ("rounds.csv", "per_user.csv", "recommendations.csv", "model.safetensors"):
        plain, attacked = ((tmp_path / name / file).read_bytes() for name in ("plain", "attacked"))
        assert plain == attacked


def test_a_shadow_federation_repeats_is_kept_and_depends_on_no_seed_of_the_run(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Membership inference calibrated by shadow federations."""
    words = (*FEW, "num_rounds=2", "evaluation.every=2")
    one, other = (target(federate(*words, f"seed={seed}")) for seed in (1, 2))
    assert (one.participated > 0).all()
    claims, inside = claimed(one.data), halves(0, 40)
    trained = one.shadow(0, claims, inside)
    assert_array_equal(trained.trained, inside)
    every = one.data.path.parent.with_name("shadows").rglob("0.safetensors")
    kept = max(every, key=lambda file: file.stat().st_mtime_ns)
    assert [file.name for file in kept.parent.iterdir()] == ["0.safetensors"]
    before = kept.read_bytes()
    kept.unlink()
    one.shadow(0, claims, inside)
    assert kept.read_bytes() == before
    monkeypatch.setattr(Shadows, "_train", None)
    duplicate = other.shadow(0, claimed(other.data), inside)
    for name, value in trained.shared.items():
        assert_array_equal(duplicate.shared[name], value)


def test_a_user_who_never_trained_is_no_member(federate: "Federate") -> None:
    ran = federate("model=mf", *MEMBERS, "clients_per_round=2", "num_rounds=1")
    trained = ran.outcome.rounds_participated * ran.setup.data.num_examples
    assert infer(ran)["num_members"] == np.count_nonzero(trained)


# --- refusals and log ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((SPY, "strategy=local_only"), "LocalOnly with 24 clients has none to attack"),
        ((SPY, "partition=single", "federation.num_nodes=1"), "with 1 clients has none to attack"),
        ((SPY, "strategy=scaffold"), "Scaffold gives clients more than the shared parameters"),
        ((SPY, "strategy=clustered", "strategy.num_clusters=2"), "Clustered gives clients more"),
        ((SPY, "model=two_tower"), "model=TwoTower have no values for single items"),
        ((SPY, "attack.round=4"), "attack.round=4 is after the last of num_rounds=3"),
        ((SPY, "attack.round=2", "strategy=median"), "uses one sum per round, unlike Median"),
        ((SPY, "model=ncf", "attack.method=separation"), "solves for clients' vectors, but model="),
        (
            (SPY, "randomness=private", "attack.method=least_squares"),
            "requires the clients' draws, and with randomness=private they come",
        ),
        ((SPY, "strategy=median", "attack.method=regression"), "replays the run, which requires"),
        (
            (SPY, "model=random", "num_rounds=0"),
            "model=RandomScores have no values",
        ),
        (("attack=membership_inference",), r"there are 0: choose split=cold_users"),
        (
            ("model=ease", "num_rounds=1", *MEMBERS),
            r"EASE with SufficientStatistics publishes none",
        ),
        (("strategy=local_only", *MEMBERS), r"with LocalOnly publishes none"),
    ],
)
def test_a_run_that_cannot_be_attacked_is_rejected_with_the_reason(
    federate: "Federate", words: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        infer(federate(*words))


def test_interaction_inference_requires_a_victim(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match=r"attack.num_victims must be 1 or more: 0"):
        federate(SPY, "attack.num_victims=0")


def test_interaction_inference_requires_a_round_of_at_least_one(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match=r"attack.round must be 1 or more, or last: 0"):
        federate(SPY, "attack.round=0")


def test_the_result_of_inference_is_logged_in_one_sentence(
    federate: "Federate", caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fedrec_flower"):
        infer(federate("model=mf", SPY, READ))
        infer(federate("model=mf", *MEMBERS))
    describe = [r.getMessage() for r in caplog.records if " inference from " in r.getMessage()]
    assert [sentence.partition(":")[0] for sentence in describe] == [
        "interaction inference from one client's message by reading",
        "membership inference from the published model",
    ]


def test_a_run_without_attack_has_no_inference(federate: "Federate") -> None:
    ran = federate("model=mf")
    assert run_inference(ran.setup.attack, target(ran)) == {}


def test_a_hidden_view_is_not_the_headline(federate: "Federate") -> None:
    """A method that reads no sum of one round was reported with the figure of a plain update."""
    regression = (SPY, "attack.method=regression", "clients_per_round=12")
    found = infer(federate(*SECRET, *regression, "attack.round=2"))
    assert (found["exposed"], found["method"]) == ("sums", "regression")
    with pytest.raises(ConfigError, match="compares the sums of several rounds"):
        infer(federate(*SECRET, *regression, "attack.round=1"))
