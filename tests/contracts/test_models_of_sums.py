"""Laws of every model with a closed-form solution."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fedrec_flower.models.closed_form import ClosedFormRecommender
from tests.helpers.model_yamls import (
    EVERY_CLOSED_FORM_YAML,
    HISTORY,
    NUM_USERS,
    initial,
    make,
    solved,
)


def closed_form(path: Path, num_users: int = NUM_USERS) -> ClosedFormRecommender:
    model = make(path, "ranking", num_users)
    assert isinstance(model, ClosedFormRecommender)
    return model


@EVERY_CLOSED_FORM_YAML
def test_names_and_shapes_of_statistics_do_not_depend_on_the_users(path: Path) -> None:
    model = closed_form(path)
    few, many = (model.statistics(h, initial(model, 0)) for h in (HISTORY.slice(0, 1), HISTORY))
    assert tuple(few) == tuple(many) == model.statistic_names
    for name, value in few.items():
        assert value.dtype == np.float64
        assert value.shape == many[name].shape


@EVERY_CLOSED_FORM_YAML
@pytest.mark.parametrize("cut", range(NUM_USERS + 1))
def test_statistics_are_sums_over_users(path: Path, cut: int) -> None:
    model = closed_form(path)
    parameters = initial(model, seed=0)
    whole = model.statistics(HISTORY, parameters)
    parts = (HISTORY.slice(0, cut), HISTORY.slice(cut, NUM_USERS))
    one, other = (model.statistics(part, parameters) for part in parts)
    for name, value in whole.items():
        assert_allclose(one[name] + other[name], value, rtol=1e-12, atol=1e-12)


@EVERY_CLOSED_FORM_YAML
def test_solve_returns_all_shared_parameters(path: Path) -> None:
    model = closed_form(path)
    for history in (HISTORY, HISTORY.slice(1, 2)):  # with and without interactions
        solution = solved(model, history)
        assert sorted(solution) == sorted(model.shared_names())
        for name, value in solution.items():
            assert value.shape == tuple(model.get_parameter(name).shape)
            assert value.dtype == np.float32
            assert np.isfinite(value).all()
