"""Laws of labels: every experiment has a name of its own, and no longer one than it needs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.reports.settings import Settings, digest, labels, parse

PLAIN: Settings = {
    "model.name": "mf",
    "strategy.name": "fedadam",
    "federation.name": "in_process",
    "model.embedding_dim": 128,
    "training.optimizer": "sgd",
}


def _labels(*changes: dict[str, Any]) -> list[str]:
    return list(labels({str(n): PLAIN | change for n, change in enumerate(changes)}).values())


def test_one_of_its_model_is_called_by_its_model() -> None:
    assert _labels({}, {"model.name": "ncf", "training.optimizer": "adam"}) == ["mf", "ncf"]


def test_namesakes_are_told_apart_by_as_little_as_will_do() -> None:
    changed = {"strategy.name": "local_only", "training.optimizer": "adam"}
    assert _labels({}, changed) == ["mf, strategy=fedadam", "mf, strategy=local_only"]
    assert _labels({}, {"model.score_with": "own"}) == [
        "mf, model.score_with=unset",
        "mf, model.score_with=own",
    ]


def test_what_tells_two_apart_is_not_said_of_a_third() -> None:
    dims = [{"model.embedding_dim": dim} for dim in (8, 16)]
    assert _labels(*dims, {"model.name": "ncf"})[2] == "ncf"


def test_no_federation_and_a_leak_are_always_said() -> None:
    assert _labels({"federation.name": "centralized"}) == ["mf, federation=centralized"]
    leaky, honest = {"split.negatives": "legacy"}, {"split.negatives": "honest"}
    assert _labels(leaky, honest) == ["mf (leaky protocol)", "mf"]


def test_an_engine_is_no_news() -> None:
    engines = [{"federation.name": name} for name in ("simulation", "in_process")]
    assert _labels(engines[0]) == _labels(engines[1]) == ["mf"]
    assert len(set(_labels(*engines))) == 2


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "model.name": st.sampled_from(["mf", "ncf"]),
                "strategy.name": st.sampled_from(["fedavg", "fedadam"]),
                "federation.name": st.sampled_from(["simulation", "in_process", "centralized"]),
                "split.negatives": st.sampled_from(["honest", "legacy"]),
                "training.rate": st.sampled_from([0.1, 1.0]),
            }
        ),
        unique_by=digest,
    )
)
def test_no_two_experiments_share_a_label(experiments: list[Settings]) -> None:
    told = labels({str(n): settings for n, settings in enumerate(experiments)})
    assert len(set(told.values())) == len(experiments)


def test_a_config_is_read_without_hydras_own_part() -> None:
    own = "model: {name: mf, hidden: [2, 1]}\nseed: 3\n"
    assert parse(f"defaults: [a]\nhydra: {{b: 1}}\n{own}") == parse(own)
    assert parse(own).items() >= {"model.name": "mf", "seed": 3}.items()
    assert parse(own)["model.hidden"] == [2, 1]


def test_a_group_that_a_version_did_not_know_was_not_chosen() -> None:
    none = "faults: {_target_: some.Class, name: none}"
    assert parse("seed: 3") == parse(f"seed: 3\n{none}")
    assert parse("seed: 3") != parse(f"seed: 3\n{none}".replace("none", "mixed"))


def test_a_setting_that_a_version_did_not_know_was_as_it_had_to_be() -> None:
    known = "evaluation: {test_history: train}"
    assert parse("seed: 3") == parse(f"seed: 3\n{known}")
    assert parse("seed: 3") != parse(f"seed: 3\n{known}".replace("train", "train_and_validation"))
    assert parse("seed: 3") == parse("seed: 3\nreply_timeout: 86400.0")


@pytest.mark.parametrize("text", ["model: [", "- a list", "", "17"])
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"config\.yaml is not"):
        parse(text)


def test_seed_and_places_make_no_other_experiment() -> None:
    same = {"seed": 7, "output_dir": "there", "dataset.cache_dir": "elsewhere"}
    assert digest(PLAIN) == digest(PLAIN | same)
    assert digest(PLAIN) != digest(PLAIN | {"num_rounds": 1})


def test_a_source_that_goes_by_the_seed_makes_no_other_experiment() -> None:
    def starting(seed: int, source: str) -> str:
        return digest({"model.name": "mf", "seed": seed, "init_from": source})

    assert starting(1, "runs/mf/1") == starting(2, "runs/mf/2")
    assert starting(1, "runs/mf/1") != starting(2, "runs/mf/1")
    assert starting(1, "runs/mf/1") != starting(1, "runs/ncf/1")
