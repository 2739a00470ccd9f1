"""The benchmark measures the requested model and cohort, with every engine in turn."""

import pytest

from fedrec_flower.benchmark.engines import ENGINES, MODELS, measure
from fedrec_flower.benchmark.measuring import in_new_process

SMALL = "dataset=synthetic dataset.num_users=40 dataset.num_items=120 dataset.num_interactions=900"
ML_100K = (
    "dataset=synthetic dataset.num_users=943 dataset.num_items=1682 dataset.num_interactions=100000"
)
LEAST_RATIO = 40  # to the plain loop; 13 to 20 before updates were added in the compiled loop


@pytest.mark.parametrize("model", MODELS)
def test_measure_uses_the_requested_model_and_cohort(model: str) -> None:
    rows = measure(model, cohort=10, rounds=1, dataset=SMALL)
    assert [row["engine"] for row in rows] == list(ENGINES)
    for row in rows:
        assert (row["model"], row["clients"]) == (model, 10)
        assert row["clients_per_cpu_second"] > 0
        assert row["round_seconds"] > 0
    plain, *others = rows
    assert plain["ratio"] == 1
    for row in others:
        by_clients = row["clients_per_cpu_second"] / plain["clients_per_cpu_second"]
        assert row["ratio"] == pytest.approx(by_clients)


def test_measure_limits_the_cohort_to_all_clients() -> None:
    assert {row["clients"] for row in measure("mf", 1000, 1, SMALL)} == {40}


@pytest.mark.slow
def test_matrix_factorisation_is_far_faster_than_a_plain_loop() -> None:
    rows = in_new_process(measure, "mf", 943, 3, ML_100K)
    (fast,) = [row for row in rows if row["engine"] == "vectorized"]
    assert fast["ratio"] > LEAST_RATIO
