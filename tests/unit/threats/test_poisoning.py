"""Laws of poisoning: fixed malicious clients and targets, profiles, and metrics of honest users."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.experiment.composition import CONF, compose
from fedrec_flower.models.mf import MF
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.threats.base import Attack

if TYPE_CHECKING:
    from fedrec_flower.threats.fake_profiles import Profiles
    from fedrec_flower.threats.poisoning import Poisoning
    from tests.conftest import PrepareSmall

PROFILES = ("random", "bandwagon", "popular")
PROMOTING = ("watch", *PROFILES, "explicit_boosting", "fedrecattack")
SHARED = {"malicious", "num_targets", "least_popular", "targets"}


def node(name: str) -> dict[str, Any]:
    chosen: dict[str, Any] = compose([f"attack={name}"])[0]["attack"]
    return chosen


def attack(data: Prepared, name: str, **choices: Any) -> Any:
    model = MF(1, data.num_items, None, "ranking", embedding_dim=4, init_std=0.1)
    return build("attack", node(name) | choices, seed=3, data=data, model=model)


@pytest.fixture
def data(prepare_small: "PrepareSmall") -> Prepared:
    return prepare_small()


# --- malicious clients and targets --------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "attack").glob("*.yaml")))
def test_every_attack_is_built_of_its_yaml(data: Prepared, name: str) -> None:
    assert isinstance(attack(data, name), Attack)


def test_all_attacks_share_malicious_clients_and_targets(data: Prepared) -> None:
    every = [attack(data, name, malicious=0.25, num_targets=2) for name in PROMOTING]
    duplicate = attack(Prepared(data.path), "watch", malicious=0.25, num_targets=2)
    for one in every:
        assert_array_equal(one.malicious_clients, duplicate.malicious_clients)
        assert_array_equal(one.promoted, duplicate.promoted)
    assert len(duplicate.malicious_clients) == 0.25 * data.num_clients
    assert len(duplicate.promoted) == 2


def test_attacks_agree_on_what_they_share() -> None:
    shared = [{key: node(name)[key] for key in SHARED} for name in PROMOTING]
    assert shared[0].pop("malicious") == 0
    for other in shared[2:]:
        assert other == shared[1]
    assert shared[0].items() <= shared[1].items()


def test_targets_are_drawn_from_the_least_popular_in_training_alone(data: Prepared) -> None:
    drawn = attack(data, "watch", num_targets=6, least_popular=0.2).promoted
    count = np.bincount(data.part(Part.TRAIN).item, minlength=data.num_items)
    assert count[drawn].max() <= np.sort(count)[6 - 1]
    assert (np.diff(count[attack(data, "watch").most_popular]) <= 0).all()


def test_items_may_be_named_by_their_ids(data: Prepared) -> None:
    chosen = attack(data, "watch", targets=["item 07", "item 03"])
    assert_array_equal(data.item_ids[chosen.promoted], ["item 03", "item 07"])


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        ({"malicious": 1.0}, r"attack\.malicious must be a share from 0 to below 1: 1\.0"),
        ({"least_popular": 0.0}, r"attack\.least_popular must be a share above 0"),
        ({"num_targets": 0}, r"attack\.num_targets must be from 1 to 30: 0"),
        ({"targets": []}, r"attack\.targets is empty"),
        ({"targets": ["heat"]}, r"there is no item 'heat'; ids are item 00, item 01"),
        ({"popular_share": 1.5}, r"attack\.popular_share must be a share from 0 to 1: 1\.5"),
    ],
)
def test_invalid_values_are_rejected(
    data: Prepared, choice: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        attack(data, "random", **choice)


@pytest.mark.parametrize(
    ("name", "choice", "complaint"),
    [
        ("explicit_boosting", {"boost": 0.0}, r"attack\.boost must be above 0"),
        ("fedrecattack", {"public": 0.0}, r"attack\.public must be above 0"),
        ("fedrecattack", {"max_rows": 4}, r"attack\.max_rows must be at least the 5 targets: 4"),
        ("fedrecattack", {"top_k": 26}, r"attack\.top_k must be from 1 to 25: 26"),
        ("fedrecattack", {"max_row_norm": 0.0}, r"attack\.max_row_norm must be above 0"),
    ],
)
def test_invalid_values_of_crafted_updates_are_rejected(
    data: Prepared, name: str, choice: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        attack(data, name, **choice)


@pytest.mark.parametrize("name", ["explicit_boosting", "fedrecattack"])
def test_a_model_without_item_vectors_is_refused_in_a_sentence(data: Prepared, name: str) -> None:
    with pytest.raises(ConfigError, match="Popularity shares none: choose model=mf"):
        build("attack", node(name), seed=3, data=data, model=Popularity(1, data.num_items))


# --- profiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_as_long_as_the_users_own_and_holds_every_target_once(
    data: Prepared, name: str
) -> None:
    fake = attack(data, name, malicious=0.5, num_targets=3)
    for client in range(data.num_clients):
        own = data.client(client)
        claimed = fake.tamper(own)
        if client not in fake.malicious_clients:
            assert claimed is own
            continue
        items = claimed.train.item
        assert len(claimed) == max(len(own), 3)
        assert len(np.unique(items)) == len(items)
        assert set(fake.promoted.tolist()) <= set(items.tolist())
        assert set(claimed.train.rating.tolist()) == {data.rating_range[1]}  # type: ignore[index]  # the data have ratings
        assert_array_equal(fake.tamper(own).train.item, items)
        assert claimed.validation is own.validation
        assert claimed.test is own.test


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 30), share=st.floats(0, 1), pool=st.floats(0, 1))
def test_a_profile_of_any_length_has_its_share_of_popular_items(
    data: Prepared, length: int, share: float, pool: float
) -> None:
    fake: Profiles = attack(data, "random", popular_share=share, popular_pool=pool, num_targets=4)
    items = fake._profile(length, np.random.default_rng(length))
    assert len(np.unique(items)) == len(items) == max(length, 4)
    room = max(length - 4, 0)
    count = round(share * room)
    others = fake.most_popular[~np.isin(fake.most_popular, fake.promoted)]
    popular = others[: max(round(pool * len(others)), count)]
    assert np.isin(items, popular).sum() >= count


def test_a_popular_profile_has_exactly_the_most_popular_items(data: Prepared) -> None:
    fake: Profiles = attack(data, "popular", num_targets=2)
    items = fake._profile(9, np.random.default_rng(0))
    others = [item for item in fake.most_popular.tolist() if item not in fake.promoted]
    assert set(items.tolist()) == {*fake.promoted.tolist(), *others[:7]}


def test_a_client_with_several_users_has_a_profile_for_each(prepare_small: "PrepareSmall") -> None:
    data = prepare_small([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    fake = attack(data, "random", malicious=0.25, num_targets=2)
    (liar,) = fake.malicious_clients.tolist()
    own = data.client(liar)
    claimed = fake.tamper(own).train
    assert_array_equal(claimed.offsets, own.train.offsets)
    for start, stop in zip(claimed.offsets, claimed.offsets[1:], strict=False):
        assert set(fake.promoted.tolist()) <= set(claimed.item[start:stop].tolist())


# --- exposure and accuracy ----------------------------------------------------------------------


def test_exposure_is_over_honest_users_who_never_had_the_target(data: Prepared) -> None:
    watch: Poisoning = attack(data, "watch", malicious=0.25, targets=["item 04", "item 09"])
    recommended = np.tile(np.arange(10, 20, dtype=np.int32), (data.num_users, 1))
    shown_to = [0, 1, 2, 3, 4, 5, 6]
    recommended[shown_to, 9] = 4
    strangers = set(range(data.num_users)) - set(
        watch.malicious_clients.tolist()
    )  # a client is a user here
    for part in Part:
        columns = data.part(part)
        strangers -= set(columns.users()[columns.item == 4].tolist())
    rate = len(strangers & set(shown_to)) / len(strangers)
    poisoning_metrics = watch.poisoning_metrics(data, recommended)
    assert poisoning_metrics["exposure@10"] == pytest.approx((rate + 0) / 2)
    assert (poisoning_metrics["num_targets"], poisoning_metrics["malicious"]) == (2, 3)


def test_honest_accuracy_is_that_of_the_lists_of_honest_users(data: Prepared) -> None:
    watch: Poisoning = attack(data, "watch", malicious=0.25)
    held_out = data.part(Part.TEST).item  # one a user
    recommended = np.full((data.num_users, 10), -1, np.int32)
    recommended[:, 2] = held_out
    recommended[watch.malicious_clients, 0] = held_out[watch.malicious_clients]
    honest = watch.poisoning_metrics(data, recommended)["ndcg@10_honest"]
    assert honest == pytest.approx(1 / np.log2(3 + 1))


def test_shorter_lists_are_named_by_their_length_and_longer_ones_cut(data: Prepared) -> None:
    watch: Poisoning = attack(data, "watch", targets=["item 04"])
    lists = np.tile(np.arange(20, 30, dtype=np.int32), (data.num_users, 1))
    late = np.concatenate([lists, np.full((data.num_users, 1), 4, np.int32)], axis=1)
    assert watch.poisoning_metrics(data, late)["exposure@10"] == 0
    assert "exposure@5" in watch.poisoning_metrics(data, lists[:, :5])


def test_a_target_in_all_histories_has_no_exposure(data: Prepared) -> None:
    watch: Poisoning = attack(data, "watch", targets=["item 04"])
    everyone = np.ones(data.num_users, bool)
    assert watch._shown(np.full((data.num_users, 3), 4, np.int32), ~everyone) == []
