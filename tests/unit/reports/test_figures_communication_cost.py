"""Laws of names and of the figure of costs: nothing is hidden, nothing is made up."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text
from numpy.typing import NDArray

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.figures.style import spread

HEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=15).map(np.array)


def _summaries(number: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "label": [f"model number {n}" for n in range(number)],
            "seed": 1,
            "status": "completed",
            "protocol": "leave_one_out, honest",
            "num_clients": 10,
            "num_test_users": 10,
            "bytes.total": 10.0 ** rng.uniform(6, 9, number),
            "test.ndcg@10": rng.uniform(0.07, 0.08, number),
            "test_standard_error.ndcg@10": 0.002,
        }
    )


def _points(axes: Axes) -> NDArray[np.float64]:
    """Where the points are, data units; an error bar's caps are lines of one point as well."""
    drawn = [bar.lines[0] for bar in axes.containers if isinstance(bar, ErrorbarContainer)]
    return np.concatenate([np.asarray(line.get_xydata()) for line in drawn if line is not None])


@given(HEIGHTS)
def test_names_keep_their_order_their_distance_and_their_room(wanted: np.ndarray) -> None:
    placed = spread(wanted, 0.05, 0.0, 1.0)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= 0.05 - 1e-12).all()
    assert placed.min() >= -1e-12
    assert placed.max() <= 1 + 1e-12


@given(HEIGHTS.filter(lambda wanted: (np.diff(np.sort(wanted)) > 0.05).all()))
def test_names_that_have_room_stay_where_they_are(wanted: np.ndarray) -> None:
    np.testing.assert_allclose(spread(wanted, 0.05, 0.0, 1.0), wanted, atol=1e-12)


def test_two_names_at_one_height_part_evenly() -> None:
    np.testing.assert_allclose(spread(np.array([0.5, 0.5]), 0.1, 0, 1), [0.45, 0.55])


def test_a_point_is_what_a_client_sends_and_receives_in_all() -> None:
    table = _summaries(1).assign(**{"bytes.total": 3e6, "num_clients": 4})
    axes = plots.accuracy_against_megabytes(table, "ndcg@10").axes[0]
    assert _points(axes).tolist() == [[3e6 / 4 / 1e6, table["test.ndcg@10"].iloc[0]]]
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("number", [1, 20])
def test_no_name_hides_a_name_or_a_point(number: int) -> None:
    figure = plots.accuracy_against_megabytes(_summaries(number), "ndcg@10")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [Text.get_window_extent(text) for text in axes.texts]
    assert len(names) == number
    assert not any(one.overlaps(other) for one, other in combinations(names, 2))
    points = axes.transData.transform(_points(axes))
    assert len(points) == number
    assert not any(name.contains(*point) for name in names for point in points)


def test_what_is_no_federation_is_left_out_and_counted() -> None:
    table = _summaries(4).assign(num_clients=[10, 10, 1, 10])
    table.loc[3, "bytes.total"] = 0.0
    figure = plots.accuracy_against_megabytes(table, "ndcg@10")
    assert {text.get_text() for text in figure.axes[0].texts} == {
        "model number 0",
        "model number 1",
    }
    assert "2 left out" in figure.texts[-1].get_text()


@pytest.mark.parametrize("lacking", ["bytes.total", "num_clients"])
def test_without_traffic_there_is_no_figure(lacking: str) -> None:
    table = _summaries(2).drop(columns=lacking)
    assert not plots.has_traffic(table)
    with pytest.raises(FedrecError, match="choose runs of a federation"):
        plots.accuracy_against_megabytes(table, "ndcg@10")
