"""Laws of the figures of users and clients: what they show is what the tables say."""

from math import log2, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.activity import by_activity


def served(per_user: pd.DataFrame, metric: str) -> Figure:
    """The figure of these users; what is not told is the same of all."""
    same: dict[str, Any] = {"dataset": "ml-100k", "label": "mf", "seed": 1}
    users = per_user.assign(**{name: v for name, v in same.items() if name not in per_user})
    if "run" not in users:
        users = users.assign(run=users["label"] + users["seed"].astype(str))
    return plots.metric_by_activity(by_activity(users, metric), metric)


def _clients(sizes: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": [f"c{client}" for client in range(len(sizes))],
            "num_users": 1,
            "num_train": sizes,
            "num_validation": 1,
            "num_test": 2,
            "rounds_participated": np.arange(len(sizes)) % 3,
        }
    )


def _legend(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def _bars(figure: Figure) -> list[tuple[float, float]]:
    """Width and height of each bar."""
    patches = figure.axes[0].patches
    return [(p.get_width(), p.get_height()) for p in patches if isinstance(p, Rectangle)]


def _yticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def _points(figure: Figure, series: int = 0) -> list[float]:
    return [float(y) for y in figure.axes[0].containers[series][0].get_ydata()]


def _spans(figure: Figure, series: int = 0) -> list[float]:
    """Half the length of each error bar."""
    segments = figure.axes[0].containers[series][2][0].get_segments()
    return [float(segment[1, 1] - segment[0, 1]) / 2 for segment in segments]


def test_activity_bins_are_fifths_from_least_to_most_active() -> None:
    # Two users in each fifth: one ranked first, one out of the first ten.
    users = pd.DataFrame({"user_id": range(10), "num_train": range(10, 20)})
    table = users.assign(rank_full=[1, 11] * 5, rank_99neg=[2, 3] * 5)
    figure = served(table, "hr@10")
    assert _points(figure) == pytest.approx([1 / 2] * 5)
    # Standard error over two users: sample deviation / sqrt(2).
    assert _spans(figure) == pytest.approx([sqrt((0.25 + 0.25) / 1) / sqrt(2)] * 5)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks[0] == "10 to 11\nn = 2"
    assert ticks[-1] == "18 to 19\nn = 2"
    sampled = served(table, "ndcg@10_99neg")
    assert _points(sampled) == pytest.approx([(1 / log2(3) + 1 / log2(4)) / 2] * 5)


def test_users_of_equal_activity_share_one_bin() -> None:
    table = pd.DataFrame({"user_id": range(6), "num_train": 7, "rank_full": [1, 1, 1, 99, 99, 99]})
    figure = served(table, "hr@10")
    assert _points(figure) == pytest.approx([3 / 6])
    assert figure.axes[0].get_xticklabels()[0].get_text() == "7\nn = 6"


def test_a_user_measured_with_several_seeds_counts_once() -> None:
    seeds = [
        pd.DataFrame(
            {"label": "mf", "seed": seed, "user_id": [1, 2], "num_train": 7, "rank_full": r}
        )
        for seed, r in ((1, [1, 1]), (2, [99, 1]))
    ]
    figure = served(pd.concat(seeds, ignore_index=True), "hr@10")
    assert _points(figure) == pytest.approx([(1 / 2 + 1) / 2])
    assert _spans(figure) == pytest.approx([sqrt(2 * 0.25**2) / sqrt(2)])


def test_a_run_made_again_says_no_more_of_its_users() -> None:
    users = pd.DataFrame({"seed": 1, "user_id": [1, 2], "num_train": 7})
    before, again = (users.assign(run=name, rank_full=r) for name, r in (("a", 99), ("b", 1)))
    figure = served(pd.concat([before, again], ignore_index=True), "hr@10")
    assert _points(figure) == [1.0]
    assert "averaged" not in figure.texts[-1].get_text()


def test_rating_errors_weigh_every_rating_alike() -> None:
    table = pd.DataFrame(
        {
            "user_id": [1, 2],
            "num_train": 7,
            "squared_error": [4.0, 12.0],
            "absolute_error": [2.0, 6.0],
            "num_ratings": [1, 3],
        }
    )
    assert _points(served(table, "rmse")) == pytest.approx([sqrt(16 / 4)])
    figure = served(table, "mae")
    assert _points(figure) == pytest.approx([8 / 4])
    assert _spans(figure) == pytest.approx([0.0])  # both users err by 2 a rating


def test_models_have_a_series_each_and_other_tasks_are_left_out() -> None:
    ranking = pd.DataFrame({"user_id": range(5), "num_train": range(5), "rank_full": 1})
    rating = ranking.drop(columns="rank_full").assign(label="biased", squared_error=1.0)
    table = pd.concat([ranking.assign(label="mf"), ranking.assign(label="ncf"), rating])
    figure = served(table, "hr@10")
    assert _legend(figure) == ["mf", "ncf"]
    with pytest.raises(FedrecError, match="rank_99neg"):
        served(table, "hr@10_99neg")
    with pytest.raises(FedrecError, match="coverage@10 cannot be computed for each user"):
        served(table, "coverage@10")


def test_of_many_models_the_best_are_drawn_and_the_others_counted() -> None:
    def ranked(hits: int) -> pd.DataFrame:
        ranks = [1] * hits + [99] * (10 - hits)
        users = {"user_id": range(10), "num_train": 7, "rank_full": ranks}
        return pd.DataFrame(users).assign(label=f"model{hits:02d}")

    figure = served(pd.concat(map(ranked, range(10))), "hr@10")
    assert _legend(figure) == [f"model{hits:02d}" for hits in range(3, 10)]
    assert "the 7 best of 10" in " ".join(figure.texts[-1].get_text().split())


def test_few_clients_are_named_and_their_bars_add_up() -> None:
    figure = plots.data_partition(_clients([5, 50, 20]))
    assert _yticks(figure) == ["c1 (1 user)", "c2 (1 user)", "c0 (1 user)"]
    assert sum(width for width, _ in _bars(figure)) == (5 + 50 + 20) + 3 * 1 + 3 * 2
    assert _legend(figure) == ["train", "validation", "test"]


def test_many_clients_are_drawn_by_size_on_a_log_scale() -> None:
    figure = plots.data_partition(_clients([*range(1, 101)]))
    assert figure.axes[0].get_yscale() == "log"
    sizes = [size + 1 + 2 for size in range(100, 0, -1)]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), sizes)


@pytest.mark.parametrize("rounds", [[4], [7, 7, 7], [0, 1, 1, 2], [*range(1000)]])
def test_participation_counts_every_client_once(rounds: list[int]) -> None:
    clients = pd.DataFrame({"rounds_participated": rounds})
    bars = _bars(plots.participation(clients))
    assert sum(height for _, height in bars) == len(rounds)
    assert len(bars) <= 40


def test_a_user_with_several_held_out_items_counts_once() -> None:
    table = pd.DataFrame({"user_id": [1, 1], "num_train": 7, "rank_full": [1, 99]})
    assert _points(served(table, "hr@10")) == [1.0]
    best = 1 + 1 / np.log2(3)  # both held-out items at the top
    assert _points(served(table, "ndcg@10")) == pytest.approx([1 / best])
