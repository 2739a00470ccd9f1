"""Poisoned federations: no effect without malicious clients, and effective attacks."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.threats.poisoning import Poisoning

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

PROFILES = ("random", "bandwagon", "popular")
CRAFTED = ("explicit_boosting", "fedrecattack")
FEW = ("attack.num_targets=2", "attack.least_popular=0.3")


def exposure(run: "Federated") -> float:
    """Share of honest users who are shown a target."""
    recommended = np.load(run.store / "notes" / "per_user_recommended.npy")
    attack = run.setup.attack
    assert isinstance(attack, Poisoning)
    poisoning_metrics = attack.poisoning_metrics(run.setup.data, recommended)
    value: float = poisoning_metrics["exposure@10"]
    return value


def assert_same(one: "Federated", other: "Federated") -> None:
    assert one.metric_table() == other.metric_table()
    for ours, theirs in ((one.shared, other.shared), (one.personal, other.personal)):
        for name, tensor in ours.items():
            assert_array_equal(theirs[name], tensor)


@pytest.mark.parametrize("attack", [*PROFILES, *CRAFTED])
def test_an_attack_without_malicious_clients_equals_no_attack(
    federate: "Federate", attack: str
) -> None:
    plain, nobody = (
        federate(*overrides) for overrides in ((), (f"attack={attack}", "attack.malicious=0.0"))
    )
    assert_same(plain, nobody)


@pytest.mark.parametrize("attack", [*PROFILES, *CRAFTED])
def test_an_attack_does_not_depend_on_hosting(federate: "Federate", attack: str) -> None:
    choices = (f"attack={attack}", "attack.malicious=0.25", *FEW)
    one, many = (federate(*choices, f"federation.num_nodes={nodes}") for nodes in (1, 6))
    for name, tensor in one.shared.items():
        assert_allclose(many.shared[name], tensor, rtol=1e-4, atol=1e-5)
    assert any(
        not np.array_equal(tensor, federate().shared[name]) for name, tensor in one.shared.items()
    )


@pytest.mark.parametrize("attack", CRAFTED)
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_crafted_updates_show_the_targets_to_honest_users(
    federate: "Federate", model: str, attack: str
) -> None:
    choices = (f"model={model}", "num_rounds=6", *FEW)
    before = federate(*choices, "attack=watch")
    after = federate(*choices, f"attack={attack}", "attack.malicious=0.25")
    assert exposure(before) < 0.3
    assert exposure(after) > 0.6


@pytest.mark.parametrize("strategy", ["median", "krum", "norm_bound"])
def test_the_server_reads_crafted_updates_one_by_one(federate: "Federate", strategy: str) -> None:
    for attack in CRAFTED:
        choices = (f"attack={attack}", "attack.malicious=0.25", f"strategy={strategy}")
        run = federate(*choices, "strategy.server_learning_rate=0.03")
        assert not any(run.watcher.lost.values())
        assert run.setup.data.num_clients == run.watcher.replied[1]


@pytest.mark.parametrize("model", ["itemknn", "ease", "popularity"])
def test_fake_profiles_reach_the_sums_of_exact_models(federate: "Federate", model: str) -> None:
    choices = (f"model={model}", "attack.malicious=0.4", *FEW)
    run = federate(*choices, "attack=popular")
    assert exposure(run) > exposure(federate(f"model={model}", "attack=watch", *FEW))


def test_the_sums_of_closed_form_models_are_equal_without_malicious_clients(
    federate: "Federate",
) -> None:
    plain, nobody = (
        federate("model=ease", *more)
        for more in ((), ("attack=popular", "attack.malicious=0.0", *FEW))
    )
    assert_same(plain, nobody)


@pytest.mark.parametrize("model", ["gru4rec", "autoencoder", "fedrap", "lightgcn"])
def test_fake_profiles_do_not_depend_on_the_model(federate: "Federate", model: str) -> None:
    run = federate(f"model={model}", "attack=bandwagon", "attack.malicious=0.25", "num_rounds=1")
    assert 0 <= exposure(run) <= 1


@pytest.mark.parametrize("attack", CRAFTED)
def test_a_model_with_personal_item_vectors_is_rejected(federate: "Federate", attack: str) -> None:
    with pytest.raises(ConfigError, match="shares none: choose model=mf"):
        federate(f"attack={attack}", "model=fedrap")
    with pytest.raises(ConfigError, match="MF shares none"):
        federate(f"attack={attack}", "freeze=[item_embedding]")
