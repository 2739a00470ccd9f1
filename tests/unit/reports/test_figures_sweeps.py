"""Laws of the figures of uneven data: where points stand, and that nothing is left out."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots


def _way(**changes: Any) -> pd.DataFrame:
    """Two rates with 100 and with 10 clients a round; of the few, one rate never got there."""
    table = pd.DataFrame(
        {
            "clients_per_round": [100, 100, 10, 10],
            "learning_rate": [1.0, 2.0, 1.0, 2.0],
            "rounds": [8.0, 4.0, 50.0, np.nan],
            "megabytes": [0.8, 0.4, 0.5, np.nan],
        }
    )
    ran = {"rounds_run": 90.0, "megabytes_run": 9.0, "goal": 0.07, "share": 0.95}
    return table.assign(dataset="ml-100k", local_epochs=2, **ran).assign(**changes)


def _marks(figure: Figure, panel: int) -> list[tuple[float, bool]]:
    """Height of each mark, and whether it is filled."""
    lines = [line for line in figure.axes[panel].lines if line.get_marker() != "None"]
    return [
        (float(np.asarray(line.get_ydata())[0]), line.get_markerfacecolor() != "none")
        for line in lines
    ]


@pytest.mark.parametrize(("panel", "column"), [(0, "rounds"), (1, "megabytes")])
def test_what_never_got_there_stands_hollow_where_it_ended(panel: int, column: str) -> None:
    table = _way()
    marks = _marks(plots.time_to_accuracy(table, "ndcg@10"), panel)
    reached = [(value, True) for value in table[column].dropna()]
    assert sorted(marks) == sorted([*reached, (table[f"{column}_run"].iloc[0], False)])


def test_a_line_joins_the_best_rates() -> None:
    axes = plots.time_to_accuracy(_way(), "ndcg@10").axes[0]
    joined = [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 1]
    assert [sorted(np.asarray(line.get_ydata()).tolist()) for line in joined] == [[4.0, 50.0]]


def test_where_nothing_got_there_everything_is_still_shown() -> None:
    figure = plots.time_to_accuracy(_way(rounds=np.nan, megabytes=np.nan), "ndcg@10")
    assert _marks(figure, 0) == [(90.0, False)] * 4


def test_no_two_of_the_same_clients_a_round_stand_on_each_other() -> None:
    table = pd.concat([_way(rounds=5.0), _way(rounds=5.0, local_epochs=4)], ignore_index=True)
    axes = plots.time_to_accuracy(table, "ndcg@10").axes[0]
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    assert len({float(np.asarray(line.get_xdata())[0]) for line in marks}) == len(table)


def test_the_goal_and_its_share_are_said() -> None:
    figure = plots.time_to_accuracy(_way(), "ndcg@10")
    told = " ".join(figure.texts[-1].get_text().split())
    assert "0.0700, 95% of the centralised run's best" in told


def test_one_figure_shows_the_way_to_one_goal() -> None:
    with pytest.raises(FedrecError, match="2 models or datasets"):
        plots.time_to_accuracy(_way(goal=[0.1, 0.1, 0.2, 0.2]), "ndcg@10")


def _uneven() -> pd.DataFrame:
    rows = [
        ("silo_random", "fedavg", 10, 0.3, 0.01),
        ("silo_random", "scaffold", 10, 0.4, 0.02),
        ("silo_dirichlet alpha=0.1", "fedavg", 10, 0.1, float("nan")),
        ("user", "scaffold", 943, 0.2, 0.03),
    ]
    columns = ["partition", "strategy", "num_clients", "mean", "sd"]
    table = pd.DataFrame(rows, columns=columns).assign(dataset="ml-100k", se=0.005)
    return table.assign(seeds=[2, 2, 1, 2])


def test_each_strategy_stands_beside_the_others_on_its_partition() -> None:
    axes = plots.strategies_on_partitions(_uneven(), "ndcg@10").axes[0]
    drawn = {
        str(bar.get_label()): np.asarray(bar.lines[0].get_xydata())
        for bar in axes.containers
        if isinstance(bar, ErrorbarContainer) and bar.lines[0] is not None
    }
    assert np.rint(drawn["fedavg"]).tolist() == [[0, 0], [1, 0]]
    assert np.rint(drawn["scaffold"][:, 0]).tolist() == [0, 2]
    assert drawn["fedavg"][:, 1].tolist() == [0.3, 0.1]
    assert drawn["scaffold"][:, 1].tolist() == [0.4, 0.2]
    assert drawn["fedavg"][0, 0] < 0 < drawn["scaffold"][0, 0]


def test_partitions_keep_their_order_and_say_their_size() -> None:
    axes = plots.strategies_on_partitions(_uneven(), "ndcg@10").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "silo_random\n10 clients",
        "silo_dirichlet\nalpha=0.1\n10 clients",
        "user\n943 clients",
    ]


def test_bars_are_over_seeds_and_of_one_seed_over_users() -> None:
    figure = plots.strategies_on_partitions(_uneven(), "ndcg@10")
    fedavg = figure.axes[0].containers[0]
    assert isinstance(fedavg, ErrorbarContainer)
    ends = [np.ptp(bar[:, 1]) for bar in fedavg.lines[2][0].get_segments()]
    assert ends == pytest.approx([2 * 0.01, 2 * 0.005])
    told = " ".join(figure.texts[-1].get_text().split())
    assert told.endswith("bars: standard error over users, one seed or sd of 2 seeds")


def test_one_strategy_stands_in_the_middle() -> None:
    table = _uneven()
    axes = plots.strategies_on_partitions(table[table["strategy"] == "fedavg"], "ndcg@10").axes[0]
    bar = axes.containers[0]
    assert isinstance(bar, ErrorbarContainer)
    assert bar.lines[0] is not None
    assert np.asarray(bar.lines[0].get_xdata()).tolist() == [0, 1]


def test_what_a_client_sends_is_its_share_of_what_it_sends_and_receives() -> None:
    summaries = pd.DataFrame(
        {
            "label": ["a"],
            "seed": 1,
            "status": "completed",
            "protocol": "honest",
            "num_clients": 4,
            "num_test_users": 4,
            "test.ndcg@10": 0.07,
            "bytes.total": 8e6,
            "bytes.up_per_client": 100,
            "bytes.down_per_client": 300,
        }
    )
    axes = plots.accuracy_against_upload(summaries, "ndcg@10").axes[0]
    bar = axes.containers[0]
    assert isinstance(bar, ErrorbarContainer)
    assert bar.lines[0] is not None
    sent = 8e6 / 4 / 1e6 * 100 / (100 + 300)
    assert np.asarray(bar.lines[0].get_xydata()).tolist() == [[pytest.approx(sent), 0.07]]
