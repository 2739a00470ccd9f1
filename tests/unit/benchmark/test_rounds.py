"""The benchmark measures the requested engine, model and cohort."""

import pytest

from fedrec_flower.benchmark.rounds import ENGINES, MODELS, measure

SMALL = "dataset=synthetic dataset.num_users=40 dataset.num_items=120 dataset.num_interactions=900"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("engine", ENGINES)
def test_measure_uses_the_requested_engine_model_and_cohort(engine: str, model: str) -> None:
    row = measure(engine, model, cohort=10, rounds=1, dataset=SMALL)
    assert (row["engine"], row["model"], row["clients"]) == (engine, model, 10)
    assert row["clients_per_cpu_second"] > 0
    assert row["round_seconds"] > 0


def test_measure_limits_the_cohort_to_all_clients() -> None:
    assert measure("vectorized", "mf", cohort=1000, rounds=1, dataset=SMALL)["clients"] == 40
