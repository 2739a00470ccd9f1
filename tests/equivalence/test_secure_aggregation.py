"""Under secure aggregation a federation learns what it would, or refuses."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.experiment.compatibility import check_strategy
from fedrec_flower.federation.client.app import app
from fedrec_flower.federation.server.secure_round import gather
from fedrec_flower.federation.transport.in_process import InProcessGrid
from tests.equivalence.test_secure_messages import masked
from tests.helpers.secure_runs import NODES, RUNS, SECURE, SHORT, assert_same

if TYPE_CHECKING:
    from tests.helpers.federations import Federate


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_the_same_with_and_without(federate: "Federate", run: str) -> None:
    one, other = (federate(*RUNS[run], *SHORT, *secure) for secure in ((), SECURE))
    assert_same(one, other, atol=1e-4)


def test_wider_integers_serve_statistics_that_are_no_whole_numbers(federate: "Federate") -> None:
    wide = (*SECURE, "secure_aggregation.modulus_bits=64")
    one, other = (federate("model=ials", *SHORT, *secure) for secure in ((), wide))
    assert_same(one, other, atol=1e-5)


@pytest.mark.parametrize("model", ["ease", "popularity"])
def test_whole_numbers_come_out_exact(federate: "Federate", model: str) -> None:
    one, other = (federate(f"model={model}", *SHORT, *secure) for secure in ((), SECURE))
    for name, tensor in one.shared.items():
        assert_array_equal(other.shared[name], tensor)


def test_the_comparison_could_fail(federate: "Federate") -> None:
    one = federate(*NODES, *SECURE)
    coarse = federate(*NODES, *SECURE, "secure_aggregation.clip_range=1e-5")
    assert any(abs(coarse.shared[n] - one.shared[n]).max() > 1e-3 for n in one.shared)


@pytest.mark.parametrize("num_nodes", [3, 24])
def test_who_hosts_whom_does_not_matter(federate: "Federate", num_nodes: int) -> None:
    few = (*SECURE, "secure_aggregation.num_neighbours=6")
    one, other = (
        federate(*SHORT, *few, f"federation.num_nodes={nodes}") for nodes in (6, num_nodes)
    )
    assert_same(one, other, atol=1e-4)


def test_the_same_seed_is_the_same_run_though_no_key_is_seeded(federate: "Federate") -> None:
    one, again = (federate(*NODES, *SECURE) for _ in range(2))
    assert one.metric_table() == again.metric_table()
    for name, tensor in one.shared.items():
        assert_array_equal(again.shared[name], tensor)
    sent = [masked(ran) for ran in (one, again)]
    assert all((a != b).any() for a, b in zip(*sent, strict=True))


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_noise_is_added_once_to_the_sum_that_comes_out(federate: "Federate", noise: float) -> None:
    private = (
        *("privacy=central_dp", "privacy.target_epsilon=null", f"privacy.noise_multiplier={noise}"),
        *("strategy.aggregation=all_clients", "min_completion=0"),
    )
    one, other = (federate(*private, *SHORT, *secure) for secure in ((), SECURE))
    assert_same(one, other, atol=1e-3)


COINS = (
    *("privacy=central_dp", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0"),
    *("strategy.aggregation=all_clients", "min_completion=0", "federation.num_nodes=12"),
    *("num_rounds=1", "clients_per_round=12"),
)


def test_under_noise_every_node_is_asked_whatever_the_coins_are(federate: "Federate") -> None:
    # Before, coins decided which nodes were there, and with them whether a sum came out.
    one, other = (federate(*SHORT, *secure, *COINS) for secure in ((), SECURE))
    trained = [m for m in other.tap.asked if m.metadata.message_type == "train.masked"]
    assert len(trained) == 4 * 12  # nodes
    hosted = [m.content.config_records["config"].get("clients") for m in trained]
    assert [] in hosted  # a node adds zeros for nobody
    assert not other.outcome.failures
    assert_same(one, other, atol=1e-3)


def test_coins_that_may_draw_too_few_for_a_sum_are_refused(federate: "Federate") -> None:
    # Before, a client whose coin made up the number moved the release by the sum of all.
    few = (*SECURE, "clients_per_round=6")
    with pytest.raises(ConfigError, match=r"min_clients=5 gives no sum .*=fixed$"):
        federate(*SHORT, *COINS, *few, "secure_aggregation.min_clients=5")
    federate(*SHORT, *COINS, *few, "secure_aggregation.min_clients=5", "privacy.sampling=fixed")


def test_too_few_nodes_are_refused_before_the_first_round(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match="min_nodes=3 is more than the 2 nodes"):
        federate(*SECURE, "federation.num_nodes=2")


def test_compression_is_refused_for_masked_tables_are_whole(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match="compression=int8 does not fit secure_aggregation"):
        federate(*NODES, *SECURE, "compression=int8")


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("krum", "Krum needs individual updates"),
        ("median", "Median needs individual updates"),
        ("clustered", "Clustered needs individual updates"),
        ("local_only", "LocalOnly sends nothing"),
    ],
)
def test_strategies_that_need_more_or_less_than_a_sum_are_refused(
    federate: "Federate", strategy: str, words: str
) -> None:
    ran = federate(f"strategy={strategy}", "num_rounds=0")
    secure = SecAgg(4, 0.6, 3, 2, "examples", 1.0, None, 32, "nearest", 10.0)
    with pytest.raises(ConfigError, match=f"{words}.*or secure_aggregation=none"):
        secure.check_strategy(
            type(ran.strategy).__name__,
            communicates=ran.strategy.communicates,
            individual_updates=ran.strategy.needs_individual_updates,
        )
    check_strategy(
        ran.strategy, ran.setup.model, ran.setup.privacy_setup.secure
    )  # in clear it is welcome


def test_clients_that_are_given_several_models_are_refused(federate: "Federate") -> None:
    ran = federate("strategy=clustered", *SHORT)
    asked = [m for m in ran.tap.asked if m.metadata.message_type == "train"][-1:]
    secure, nowhere = (
        SecAgg(4, 0.6, 3, 2, "examples", 1.0, None, 32, "nearest", 10.0),
        InProcessGrid(app, 1),
    )
    dispatcher = replace(
        ran.server.dispatcher, grid=nowhere, asked={asked[0].metadata.dst_node_id: [0]}
    )
    with pytest.raises(ConfigError, match="clients are given several"):
        gather(secure, asked, dispatcher, ran.server.reply_schema(), 1)


def test_a_node_knows_from_its_job_whether_to_mask(federate: "Federate") -> None:
    plain, secure = (federate(*NODES, "num_rounds=0", *words) for words in ((), SECURE))
    for ran, name in ((plain, "none"), (secure, "secagg")):
        assert ran.job.secure_aggregation["name"] == name
        assert isinstance(ran.open_node().secure, SecAgg) == (name == "secagg")
