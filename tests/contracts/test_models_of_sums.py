"""What every model that is solved from sums must do."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fedrec_flower.models.closed_form import ClosedFormRecommender
from tests.helpers.model_yamls import EVERY_EXACT_YAML, HISTORY, NUM_USERS, initial, make, solved


def exact(path: Path, num_users: int = NUM_USERS) -> ClosedFormRecommender:
    model = make(path, "ranking", num_users)
    assert isinstance(model, ClosedFormRecommender)
    return model


@EVERY_EXACT_YAML
def test_statistics_bear_the_promised_names_and_their_shapes_depend_on_no_user(path: Path) -> None:
    model = exact(path)
    few, many = (model.statistics(h, initial(model, 0)) for h in (HISTORY.slice(0, 1), HISTORY))
    assert tuple(few) == tuple(many) == model.statistic_names
    for name, value in few.items():
        assert value.dtype == np.float64
        assert value.shape == many[name].shape


@EVERY_EXACT_YAML
@pytest.mark.parametrize("cut", range(NUM_USERS + 1))
def test_the_statistics_of_users_are_the_sum_of_those_of_their_parts(path: Path, cut: int) -> None:
    model = exact(path)
    parameters = initial(model, seed=0)
    whole = model.statistics(HISTORY, parameters)
    parts = (HISTORY.slice(0, cut), HISTORY.slice(cut, NUM_USERS))
    one, other = (model.statistics(part, parameters) for part in parts)
    for name, value in whole.items():
        assert_allclose(one[name] + other[name], value, rtol=1e-12, atol=1e-12)


@EVERY_EXACT_YAML
def test_a_solution_takes_the_shared_parameters_place(path: Path) -> None:
    model = exact(path)
    for history in (HISTORY, HISTORY.slice(1, 2)):  # something, nothing
        found = solved(model, history)
        assert sorted(found) == sorted(model.shared_names())
        for name, value in found.items():
            assert value.shape == tuple(model.get_parameter(name).shape)
            assert value.dtype == np.float32
            assert np.isfinite(value).all()
