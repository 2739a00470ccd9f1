"""Laws of the figure of privacy against accuracy."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT


def runs() -> pd.DataFrame:
    """Two seeds of a model at two epsilons and without noise, and a run that failed."""
    rows = [
        ("ease", epsilon, seed, value + 0.01 * seed, "completed")
        for epsilon, value in ((0.99, 0.1), (7.98, 0.3), (None, 0.5))
        for seed in (0, 1)
    ]
    rows.append(("mf", 1.0, 0, float("nan"), "failed"))
    columns = ["model", "epsilon", "seed", "test.ndcg@10", "status"]
    return pd.DataFrame(rows, columns=columns).assign(dataset="ml-100k", num_users=943)


def drawn() -> Figure:
    return plots.privacy_utility(runs(), "ndcg@10")


def test_a_line_is_a_model_on_a_population_through_the_means_of_its_seeds() -> None:
    axes = drawn().axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ease, ml-100k, 943 users"]
    line = next(line for line in axes.lines if line.get_linestyle() == "-")
    assert np.asarray(line.get_xdata()).tolist() == [1.0, 8.0]
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.105, 0.305])


def test_what_has_no_noise_stands_beyond_the_last_epsilon() -> None:
    axes = drawn().axes[0]
    dotted = next(line for line in axes.lines if line.get_linestyle() == ":")
    assert np.asarray(dotted.get_xdata()).tolist() == [8.0, 16.0]
    assert np.asarray(dotted.get_ydata()).tolist() == pytest.approx([0.305, 0.505])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "8", "∞"]


def test_a_metric_that_no_run_reports_is_told() -> None:
    with pytest.raises(FedrecError, match="no run reports the test metric hr@99"):
        plots.privacy_utility(runs(), "hr@99")
    failed = runs().tail(1)
    with pytest.raises(FedrecError, match="no completed run reports"):
        plots.privacy_utility(failed, "ndcg@10")


def test_a_run_made_again_moves_no_point() -> None:
    told = runs().assign(run=lambda frame: frame.index.astype("str"), configuration=range(7))
    again = told.head(1).assign(run="again")
    figure = plots.privacy_utility(pd.concat([told, again], ignore_index=True), "ndcg@10")
    line = next(line for line in figure.axes[0].lines if line.get_linestyle() == "-")
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.105, 0.305])


@pytest.mark.parametrize("randomness", ["seeded", "private"])
def test_that_noise_follows_from_a_known_seed_is_said_in_the_figure(randomness: str) -> None:
    """Item 1: the server knows no draw of a client."""
    figure = plots.privacy_utility(runs().assign(randomness=randomness), "ndcg@10")
    shown = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert (SEEDED_CAVEAT in shown) == (randomness == "seeded")
