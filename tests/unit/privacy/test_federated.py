"""Laws of privacy in a federation: its effect on parameters, messages and the account."""

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.communication.packing import ROWS
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.updates import ROW_WEIGHT
from fedrec_flower.privacy.accounting import epsilon_of

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

# As many training interactions for each of 24 users: equal weights are then no change.
EQUAL = ("dataset.activity_sigma=0.0", "dataset.num_interactions=384")
ALL = ("model=mf", "strategy.aggregation=all_clients")
CENTRAL = (*ALL, "privacy=central_dp", "min_completion=0.0", "privacy.target_epsilon=null")
LOCAL = (*ALL, "privacy=local_dp", "privacy.target_epsilon=null")
NO_NOISE = ("privacy.noise_multiplier=0.0", "privacy.clip_norm=.inf")
NOISE = ("privacy.noise_multiplier=1.0", "privacy.clip_norm=0.1")


def same(one: "Federated", other: "Federated", tolerance: float) -> None:
    assert one.shared.keys() == other.shared.keys()
    for name, value in one.shared.items():
        assert_allclose(other.shared[name], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mechanism", [CENTRAL, LOCAL], ids=["central", "local"])
@pytest.mark.parametrize("more", ["privacy.clipping=flat", "privacy.clipping=per_tensor"])
def test_no_noise_and_no_bound_equal_no_privacy(
    federate: "Federate", mechanism: tuple[str, ...], more: str
) -> None:
    plain, private = federate(*ALL, *EQUAL), federate(*mechanism, *NO_NOISE, *EQUAL, more)
    counts = set(plain.setup.data.num_examples.tolist())
    assert len(counts) == 1
    same(plain, private, 1e-6)
    assert private.outcome.privacy["epsilon"] == float("inf")


@pytest.mark.parametrize("model", ["popularity", "itemknn", "ease"])
def test_no_noise_and_no_bound_equal_no_privacy_for_sums(federate: "Federate", model: str) -> None:
    central = ("privacy=central_dp", "min_completion=0.0", "privacy.target_epsilon=null", *NO_NOISE)
    lies = ("privacy=randomized_response", "privacy.epsilon=.inf", "privacy.max_items=99")
    plain, *private = (federate(f"model={model}", "num_rounds=1", *p) for p in ((), central, lies))
    for ran in private:
        same(plain, ran, 1e-5)


def test_epsilon_is_that_of_the_rounds_and_cohorts_of_the_run(federate: "Federate") -> None:
    ran = federate(*CENTRAL, *NOISE, "privacy.delta=0.001", "clients_per_round=6")
    assert ran.outcome.privacy["epsilon"] == epsilon_of(((1.0, 6 / 24, 3),), 1e-3)
    assert ran.outcome.privacy["delta"] == 1e-3
    asked = [m for m in ran.tap.asked if m.metadata.message_type == "train"]
    sizes = [len(m.content.config_records["config"]["clients"]) for m in asked]  # type: ignore[arg-type]  # a list
    assert ran.outcome.rounds_participated.sum() == sum(sizes)


def test_local_epsilon_is_that_of_the_most_sampled_client(federate: "Federate") -> None:
    ran = federate(*LOCAL, *NOISE, "privacy.delta=0.001", "clients_per_round=6")
    most = int(ran.outcome.rounds_participated.max())
    assert ran.outcome.privacy["epsilon"] == epsilon_of(((1.0 / 2, 1.0, most),), 1e-3)


@pytest.mark.parametrize("mechanism", [CENTRAL, LOCAL], ids=["central", "local"])
def test_noise_changes_every_row_and_hosting_changes_none(
    federate: "Federate", mechanism: tuple[str, ...]
) -> None:
    one, many = (federate(*mechanism, *NOISE, f"federation.num_nodes={n}") for n in (1, 5))
    same(one, many, 1e-5)
    quiet = federate(*mechanism, "privacy.noise_multiplier=0.0", "privacy.clip_norm=0.1")
    for name, value in one.shared.items():
        assert (value != quiet.shared[name]).all()


@pytest.mark.parametrize(
    "mechanism",
    [(*CENTRAL, *NOISE), (*LOCAL, *NOISE), (*ALL, "privacy=pseudo_items", "privacy.dense=true")],
    ids=["central", "local", "pseudo"],
)
def test_no_message_reveals_touched_rows(federate: "Federate", mechanism: tuple[str, ...]) -> None:
    ran = federate(*mechanism, "federation.num_nodes=24")  # a node is one client
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    assert replies
    for reply in replies:
        sent = {n: array.numpy() for n, array in reply.content.array_records["update"].items()}
        assert ROWS not in sent
        assert len(set(sent[ROW_WEIGHT].tolist())) == 1
    row = ran.setup.data.num_items * ran.shared["item_embedding.weight"].itemsize
    assert ran.outcome.bytes_up > row * ran.shared["item_embedding.weight"].shape[1]


def test_weights_do_not_reveal_activity(federate: "Federate") -> None:
    for mechanism in (CENTRAL, LOCAL):
        ran = federate(*mechanism, *NOISE, "federation.num_nodes=24")
        replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
        assert {m.content.metric_records["metrics"]["num_examples"] for m in replies} == {1.0}


def test_clients_use_the_adaptive_bound_of_the_server(federate: "Federate") -> None:
    adapt = ("privacy.adaptive_clipping=true", "privacy.count_noise=3.0", "privacy.clip_norm=9.0")
    ran = federate(*CENTRAL, "privacy.noise_multiplier=1.0", *adapt)
    asked = [m for m in ran.tap.asked if m.metadata.message_type == "train"]
    bounds = [m.content.config_records["config"]["clip_norm"] for m in asked]
    assert bounds[0] == 9.0
    assert len(set(bounds)) == 3  # one node, three rounds


def test_statistics_of_a_user_are_bounded_and_noisy(federate: "Federate") -> None:
    central = ("privacy=central_dp", "min_completion=0.0", "privacy.target_epsilon=null")
    bound = ("model=popularity", *central, "privacy.clip_norm=0.5")
    quiet = federate(*bound, "privacy.noise_multiplier=0.0")
    count = quiet.setup.data.num_examples
    total = (0.5 / np.sqrt(count) * count).sum()
    assert quiet.shared["popularity"].sum() == pytest.approx(total, rel=1e-4)
    noisy = federate(*bound, "privacy.noise_multiplier=1.0")
    assert (noisy.shared["popularity"] != quiet.shared["popularity"]).all()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            ("model=mf", "strategy.aggregation=touched_clients", *CENTRAL[2:], *NOISE),
            r"set strategy.aggregation=all_clients",
        ),
        ((*CENTRAL, *NOISE, "partition=silo_random"), r"set privacy.unit=client"),
        ((*CENTRAL, *NOISE, "strategy=median"), r"Median uses more of the clients"),
        ((*CENTRAL, *NOISE, "strategy=scaffold"), r"Scaffold uses more of the clients"),
        (("model=mf", "strategy=local_only", *CENTRAL[2:], *NOISE), r"choose privacy=none"),
        ((*CENTRAL, *NOISE, "min_completion=0.5"), r"set min_completion=0"),
        ((*CENTRAL, *NOISE, "compression=sparse_rows"), r"choose compression=none"),
        (("model=ials", *CENTRAL[2:], *NOISE), r"no known bound under model=IALS"),
    ],
)
def test_a_guarantee_that_would_not_hold_is_refused(
    federate: "Federate", asked: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        federate(*asked)


def test_seeded_noise_is_logged_in_one_line(
    federate: "Federate", caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        one, again = (federate(*CENTRAL, *NOISE) for _ in "ab")
    said = [r for r in caplog.records if "noise of privacy is seeded" in r.getMessage()]
    assert len(said) == 2  # one a run
    assert_array_equal(one.shared["item_bias.weight"], again.shared["item_bias.weight"])
    caplog.clear()
    federate("model=mf")
    assert "seeded" not in caplog.text
