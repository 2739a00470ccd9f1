"""The benchmark measures what it says it measures."""

import pytest

from fedrec_flower.benchmark.rounds import ENGINES, MODELS, measure

SMALL = "dataset=synthetic dataset.num_users=40 dataset.num_items=120 dataset.num_interactions=900"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_and_model_is_measured_on_the_cohort_asked_for(
    engine: str, model: str
) -> None:
    row = measure(engine, model, cohort=10, rounds=1, dataset=SMALL)
    assert (row["engine"], row["model"], row["clients"]) == (engine, model, 10)
    assert row["clients_per_cpu_second"] > 0
    assert row["round_seconds"] > 0


def test_a_cohort_larger_than_the_population_is_the_population() -> None:
    assert measure("vectorized", "mf", cohort=1000, rounds=1, dataset=SMALL)["clients"] == 40
