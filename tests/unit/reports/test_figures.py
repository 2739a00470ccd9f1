"""Laws of the figures of runs: what they show is what the tables say."""

from itertools import combinations, product
from math import log2, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.figures.style import (
    PALE,
    chance_level,
    looks,
    metric_label,
    series_labels,
)

HONEST, LEGACY = "leave_one_out honest", "leave_one_out legacy"


def _runs(models: tuple[str, ...], seeds: tuple[int, ...], **columns: Any) -> pd.DataFrame:
    """Validation is round + seed, test one less; round 2 is selected."""
    rows = [
        {"label": model, "seed": seed, "round": round_, "phase": phase, "value": value}
        for model, seed, round_ in product(models, seeds, range(4))
        for phase, value in (("validation", round_ + seed), ("test", round_ + seed - 1))
    ]
    constant: dict[str, Any] = {"metric": "hr@10_99neg", "selected_round": 2, "protocol": HONEST}
    return pd.DataFrame(rows).assign(**(constant | columns))


def _summaries(values: dict[tuple[str, int], float], **columns: Any) -> pd.DataFrame:
    rows = [
        {"label": model, "seed": seed, "test.hr@10": value, "status": "completed"}
        for (model, seed), value in values.items()
    ]
    constant: dict[str, Any] = {"num_test_users": 943, "protocol": HONEST}
    errors = {"test_standard_error.hr@10": 0.015}
    return pd.DataFrame(rows).assign(**(constant | errors | columns))


def _legend(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def _line(figure: Figure, y: list[float]) -> bool:
    """Whether a line of the figure runs through these heights."""
    heights = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    return any(len(drawn) == len(y) and np.allclose(drawn, y) for drawn in heights)


def _marks(axes: Axes) -> list[Any]:
    """The points of a panel, from top to bottom."""
    return [line for line in axes.lines if line.get_marker() == "o"]


def _keys(figure: Figure) -> list[str]:
    """What a legend of the whole figure explains."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _yticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_convergence_draws_means_over_seeds_and_marks_the_selected_rounds() -> None:
    figure = plots.convergence(_runs(("mf",), (1, 3)), "hr@10_99neg")
    assert _line(figure, [0 + 2, 1 + 2, 2 + 2, 3 + 2])
    assert _line(figure, [0 + 1, 1 + 1, 2 + 1, 3 + 1])
    assert _line(figure, [2 + 1, 2 + 3])  # the rings, one per seed
    keys = ["mf", "validation", "test", "±1 sd over seeds", "selected round", "chance"]
    assert _legend(figure) == keys


def test_one_seed_has_no_band_and_full_ranking_no_chance_level() -> None:
    figure = plots.convergence(_runs(("mf",), (1,), metric="hr@10"), "hr@10")
    assert _legend(figure) == ["mf", "validation", "test", "selected round"]
    assert not figure.axes[0].collections


def test_a_run_that_has_not_selected_a_round_has_no_ring() -> None:
    runs = _runs(("mf",), (1,)).assign(selected_round=pd.array([pd.NA] * 8, dtype="Int64"))
    assert "selected round" not in _legend(plots.convergence(runs, "hr@10_99neg"))


def test_convergence_draws_the_phases_there_are() -> None:
    runs = _runs(("mf",), (1,))
    of_phase = {phase: runs[runs["phase"] == phase] for phase in ("validation", "test")}
    validation = plots.convergence(of_phase["validation"], "hr@10_99neg")
    assert _legend(validation) == ["mf", "validation", "selected round", "chance"]
    assert _legend(plots.convergence(of_phase["test"], "hr@10_99neg")) == ["mf", "test", "chance"]


def test_a_repeated_run_is_drawn_once() -> None:
    before, again = (_runs(("mf",), (1,), run=name) for name in ("a", "b"))
    figure = plots.convergence(pd.concat([before.assign(value=9.0), again]), "hr@10_99neg")
    assert _line(figure, [1, 2, 3, 4])
    assert "±1 sd over seeds" not in _legend(figure)


def test_folds_of_one_seed_are_averaged_and_called_folds() -> None:
    folds = [_runs(("mf",), (1,), run=name, split_sha256=name) for name in ("u1", "u2")]
    folds[1]["value"] += 2
    figure = plots.convergence(pd.concat(folds, ignore_index=True), "hr@10_99neg")
    assert _line(figure, [0 + 2, 1 + 2, 2 + 2, 3 + 2])
    assert "±1 sd over folds" in _legend(figure)
    assert figure.texts[-1].get_text() == "means over 2 folds"


@pytest.mark.parametrize("number", [1, 6])
def test_few_models_stand_in_the_legend(number: int) -> None:
    models = tuple(f"model{n:02d}" for n in range(number))
    legend = _legend(plots.convergence(_runs(models, (1,)), "hr@10_99neg"))
    assert legend[:number] == list(models)


def test_every_model_has_its_own_look() -> None:
    drawn = looks(f"model{n:02d}" for n in range(40)).values()
    assert len({(look.colour, look.marker) for look in drawn}) == 40


@pytest.mark.parametrize(("metric", "named"), [("hr@10", range(13, 20)), ("rmse", range(7))])
def test_of_many_models_those_that_end_best_are_named_and_the_others_grey(
    metric: str, named: range
) -> None:
    every = [_runs((f"model{n:02d}",), (1,), metric=metric) for n in range(20)]
    runs = pd.concat(
        [of_model.assign(value=of_model["value"] + n) for n, of_model in enumerate(every)],
        ignore_index=True,
    )
    figure = plots.convergence(runs, metric)
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == [f"model{n:02d}" for n in named]
    ends = {float(np.asarray(line.get_ydata())[-1]) for line in axes.lines}
    assert {n + 3 + 1 for n in range(20)} <= ends  # every model has its line
    grey = {np.asarray(line.get_ydata())[-1] for line in axes.lines if line.get_color() == PALE}
    assert grey == {n + 3 + 1 for n in range(20) if n not in named}
    assert "the 7 best of 20 in colour" in figure.texts[-1].get_text()


def test_no_name_of_many_models_stands_on_another() -> None:
    models = tuple(f"model{n:02d}" for n in range(7))
    figure = plots.convergence(_runs(models, (1, 3)), "hr@10_99neg")
    axes = figure.axes[0]
    assert axes.get_legend() is None
    assert sorted(text.get_text() for text in axes.texts) == list(models)
    assert "best" not in figure.texts[-1].get_text()
    assert _line(figure, [0 + 2, 1 + 2, 2 + 2, 3 + 2])
    assert not _line(figure, [0 + 1, 1 + 1, 2 + 1, 3 + 1])  # of test
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to its curve
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_what_ends_early_is_led_on_to_its_name() -> None:
    models = tuple(f"model{n:02d}" for n in range(7))
    runs = _runs(models, (1,))
    short = runs[(runs["label"] != "model00") | (runs["round"] <= 1)]
    axes = plots.convergence(short, "hr@10_99neg").axes[0]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    ends = [np.asarray(line.get_xydata()).tolist() for line in dotted]
    assert [[1, 1 + 1], [3, 1 + 1]] in ends


def test_a_frame_without_labels_is_one_series() -> None:
    assert list(series_labels(pd.DataFrame({"rank_full": [1, 2]}))) == ["", ""]


@pytest.mark.parametrize(
    ("metric", "level"),
    [
        ("hr@10_99neg", 10 / 100),
        ("ndcg@2_99neg", (1 / log2(2) + 1 / log2(3)) / 100),
        ("hr@10", None),
        ("rmse", None),
    ],
)
def test_chance_is_known_where_candidates_are_counted(metric: str, level: float | None) -> None:
    assert chance_level(metric) == (None if level is None else pytest.approx(level))


def test_metrics_are_named_with_their_candidates() -> None:
    assert metric_label("ndcg@10_99neg") == "NDCG@10 (99 negatives)"
    assert metric_label("coverage@20") == "Coverage@20 (full ranking)"
    assert metric_label("rmse") == "RMSE (rating units)"


@pytest.mark.parametrize("draw", [plots.convergence, plots.comparison, plots.metric_by_activity])
def test_an_unknown_metric_is_one_clear_sentence(draw: Any) -> None:
    table = _runs(("mf",), (1,)).assign(status="completed", **{"test.hr@5": 0.1})
    with pytest.raises(FedrecError, match=r"hr@7?.*choose"):
        draw(table, "hr@7")


def test_comparison_says_what_most_bars_are_once_and_names_the_exceptions() -> None:
    values = {("mf", 1): 0.2, ("mf", 2): 0.4, ("ncf", 1): 0.25}
    figure = plots.comparison(_summaries(values), "hr@10")
    assert _yticks(figure) == ["mf", "ncf\none seed, se over 943 users"]
    told = " ".join(figure.texts[-1].get_text().split())
    assert told.endswith("bars: sd of 2 seeds, unless stated otherwise")
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts == {f"0.300 ± {sqrt(0.1**2 + 0.1**2):.3f}", "0.250 ± 0.015"}


def test_comparison_of_folds_shows_mean_and_deviation_over_all_of_them() -> None:
    folds = [
        _summaries({("mf", 1): value}, run=name, split_sha256=name)
        for name, value in (("u1", 0.2), ("u2", 0.4))
    ]
    repeated = folds[0].assign(run="u1 again")
    figure = plots.comparison(pd.concat([*folds, repeated], ignore_index=True), "hr@10")
    assert [text.get_text() for text in figure.axes[0].texts] == [f"0.300 ± {sqrt(0.02):.3f}"]
    assert "bars: sd of 2 folds" in figure.texts[-1].get_text()


def test_what_is_the_same_of_all_bars_is_said_once() -> None:
    figure = plots.comparison(_summaries({("a", 1): 0.2, ("b", 1): 0.3}), "hr@10")
    assert _yticks(figure) == ["b", "a"]
    assert "bars: one seed, se over 943 users" in figure.texts[-1].get_text()


def test_comparison_has_a_panel_for_each_metric_in_the_order_of_the_first() -> None:
    table = _summaries({("a", 1): 0.2, ("b", 1): 0.3}).assign(**{"test.auc": [0.9, 0.8]})
    figure = plots.comparison(table, "hr@10", "auc")
    assert _yticks(figure) == ["b", "a"]
    points = [[float(line.get_xdata()[0]) for line in _marks(axes)] for axes in figure.axes]
    assert points == [[0.3, 0.2], [0.8, 0.9]]


def test_comparison_puts_the_best_on_top_and_leaky_runs_last() -> None:
    honest = _summaries({("a", 1): 0.2, ("b", 1): 0.3})
    leaky = _summaries({("a (leaky protocol)", 1): 0.9}, protocol=LEGACY)
    table = pd.concat([honest, leaky], ignore_index=True)
    order = [name.split("\n")[0] for name in _yticks(plots.comparison(table, "hr@10"))]
    assert order == ["b", "a", "a (leaky protocol)"]


def test_what_is_no_federation_stands_in_a_colour_of_its_own() -> None:
    table = _summaries({("a", 1): 0.4, ("b", 1): 0.3, ("c", 1): 0.2, ("d", 1): 0.1})
    engines = pd.Series(["in_process", "centralized", "simulation", None])
    mixed = table.assign(federation=engines)
    figure = plots.comparison(mixed, "hr@10")
    a, b, c, d = (line.get_color() for line in _marks(figure.axes[0]))
    assert a == c == d != b
    assert _keys(figure) == ["federated", "without federation"]
    assert _keys(plots.comparison(mixed[mixed["label"] != "b"], "hr@10")) == []


def test_comparison_of_errors_puts_the_lowest_on_top() -> None:
    table = _summaries({("a", 1): 1.2, ("b", 1): 0.9}).rename(columns={"test.hr@10": "test.rmse"})
    order = [name.split("\n")[0] for name in _yticks(plots.comparison(table, "rmse"))]
    assert order == ["b", "a"]


def test_comparison_of_sampled_metrics_shows_chance() -> None:
    table = _summaries({("a", 1): 0.5}).rename(columns={"test.hr@10": "test.hr@10_99neg"})
    figure = plots.comparison(table, "hr@10_99neg")
    assert "chance" in {text.get_text() for text in figure.axes[0].texts}
    assert any(np.array_equal(line.get_xdata(), [0.1, 0.1]) for line in figure.axes[0].lines)


def test_a_single_seed_without_an_error_claims_none() -> None:
    table = _summaries({("a", 1): 0.2}).drop(columns="test_standard_error.hr@10")
    figure = plots.comparison(table, "hr@10")
    assert _yticks(figure) == ["a"]
    assert "bars: one seed" in figure.texts[-1].get_text()
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.200"]


def test_comparison_leaves_unfinished_runs_out() -> None:
    table = _summaries({("a", 1): 0.2, ("b", 1): 0.3}).assign(status=["completed", "failed"])
    assert len(_yticks(plots.comparison(table, "hr@10"))) == 1


def test_a_figure_is_saved_as_png_and_svg_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    runs = _runs(("mf", "ncf"), (1, 2))
    png, svg = plots.save(plots.convergence(runs, "hr@10_99neg"), tmp_path / "a", "convergence")
    again = plots.save(plots.convergence(runs, "hr@10_99neg"), tmp_path / "b", "convergence")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().rstrip().endswith("</svg>")
    assert [file.read_bytes() for file in again] == [png.read_bytes(), svg.read_bytes()]


def test_an_unwritable_figure_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FedrecError, match=r"figure curves could not be written to .*choose a folder"
    ):
        plots.save(
            plots.convergence(_runs(("mf",), (1,)), "hr@10_99neg"), tmp_path / "file", "curves"
        )
