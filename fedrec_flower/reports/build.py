"""Comparison of runs: `python -m fedrec_flower compare RUNS --to FOLDER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.files import replace_unprintable
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.activity import activity_markdown, by_activity
from fedrec_flower.reports.headline import headline, leaderboard_markdown
from fedrec_flower.reports.leaderboard import (
    leaderboard_table,
    validation_ranking,
    validation_ranking_markdown,
)
from fedrec_flower.reports.load import (
    load_per_user,
    load_runs,
    load_settings,
    load_summaries,
    read_table,
)
from fedrec_flower.reports.settings import varied_groups
from fedrec_flower.reports.sweeps import (
    async_curves,
    async_markdown,
    async_table,
    attack_markdown,
    attack_table,
    heterogeneity_markdown,
    heterogeneity_table,
    time_to_accuracy_markdown,
    time_to_accuracy_table,
)


def compare(runs: Path, to: Path, metric: str | None, published: Path | None = None) -> str:
    """Write `comparison.csv`, `comparison.md` and figures of all completed runs below a folder.

    Figures of all runs: `comparison` (headline metrics), `megabytes` (accuracy against traffic),
    `convergence` (accuracy against rounds) and `activity` (accuracy by user activity, also as a
    table). Sweeps over one of these settings add:

    - partition and strategy: `heterogeneity` (accuracy on each partition), figure and table
    - clients per round, with a centralised run: `goal` (rounds and megabytes until 95 % of the
      validation metric of the centralised run), figure and table
    - epsilon: `privacy_utility` (accuracy against epsilon)
    - compression: `upload` (accuracy against uploaded bytes)
    - attack on target items: `attacks` (exposure of the targets by strategy), figure and table

    Runs with an inference attack add `curious` (success of the attack). Runs with a simulated clock
    add `clock` (validation against time, and the time until 95 % of the best value of a synchronous
    server), figure and table.

    Args:
        runs: a run folder, or a folder with run folders at any depth.
        to: output folder; created if missing.
        metric: metric of the figures; None for the first available headline metric.
        published: a table of `results/published`. It adds the figure `leak`: published values,
            and ours with and without the leak.

    Returns:
        The table, as Markdown.

    Raises:
        FedrecError: if there is no completed run, or runs cannot be compared.
    """
    table = leaderboard_table(runs)
    text = leaderboard_markdown(table)
    to.mkdir(parents=True, exist_ok=True)
    _write(table, text, to, "comparison")
    shown = metric or next(iter(headline(table)), "ndcg@10")
    _draw(runs, to, shown, headline(table))
    _draw_sweep(runs, to, shown)
    if published is not None:
        plots.save(plots.protocol_leak(load_summaries(runs), read_table(published)), to, "leak")
    return text


def choose(runs: Path, to: Path, metric: str) -> str:
    """Write `choices.csv` and `choices.md`: the settings of a search ranked by validation only.

    Args:
        runs: a folder with run folders at any depth.
        to: output folder; created if missing.
        metric: the validation metric of the ranking.

    Returns:
        The table, as Markdown.

    Raises:
        FedrecError: if no completed run has the metric.
    """
    table = validation_ranking(runs, metric)
    text = validation_ranking_markdown(table)
    to.mkdir(parents=True, exist_ok=True)
    _write(table, text, to, "choices")
    return text


def _draw(runs: Path, to: Path, metric: str, headlines: list[str]) -> None:
    summaries = load_summaries(runs)
    column = f"test.{metric}"
    ours = summaries[summaries[column].notna()] if column in summaries else summaries
    measured = set(ours.dropna(axis="columns", how="all")) - {column}
    others = [name for name in headlines if f"test.{name}" in measured]
    plots.save(plots.comparison(summaries, metric, *others), to, "comparison")
    plots.save(plots.convergence(load_runs(runs), metric), to, "convergence")
    _draw_activity(runs, to, metric)
    if plots.has_inference_results(summaries):
        plots.save(plots.privacy_leakage(summaries), to, "curious")
    if not (on_clock := async_curves(runs, metric)).empty:
        _draw_clock(on_clock, async_table(runs, metric), to, metric)
    if plots.has_traffic(ours):
        plots.save(plots.accuracy_against_megabytes(ours, metric), to, "megabytes")


def _draw_sweep(runs: Path, to: Path, metric: str) -> None:
    """Write tables and figures of the settings that the runs vary."""
    differ = varied_groups(load_settings(runs).values())
    if {"partition", "strategy"} <= differ:
        table = heterogeneity_table(runs, metric)
        _write(table, heterogeneity_markdown(table, metric), to, "heterogeneity")
        plots.save(plots.strategies_on_partitions(table, metric), to, "heterogeneity")
    if "clients_per_round" in differ:
        _draw_goal(time_to_accuracy_table(runs, metric), to, metric)
    summaries = load_summaries(runs)
    if "compression" in differ and plots.has_traffic(summaries):
        plots.save(plots.accuracy_against_upload(summaries, metric), to, "upload")
    if "epsilon" in summaries and len(set(summaries["epsilon"].dropna())) > 1:
        plots.save(plots.privacy_utility(summaries, metric), to, "privacy_utility")
    if "attack" in differ and not (table := attack_table(runs)).empty:
        _write(table, attack_markdown(table), to, "attacks")
        plots.save(plots.attacks_on_defences(table), to, "attacks")


def _draw_goal(table: pd.DataFrame, to: Path, metric: str) -> None:
    if table.empty:
        return
    _write(table, time_to_accuracy_markdown(table, metric), to, "goal")
    if len(set(table["goal"])) == 1:  # one figure shows the way to one goal
        plots.save(plots.time_to_accuracy(table, metric), to, "goal")


def _draw_activity(runs: Path, to: Path, metric: str) -> None:
    rated = metric in ("rmse", "mae")
    table = by_activity(load_per_user(runs), *(("rmse", "mae") if rated else ("ndcg@10", "hr@10")))
    _write(table, activity_markdown(table), to, "activity")
    plots.save(plots.metric_by_activity(table, "rmse" if rated else "hr@10"), to, "activity")


def _draw_clock(on_clock: pd.DataFrame, table: pd.DataFrame, to: Path, metric: str) -> None:
    if not table.empty:
        _write(table, async_markdown(table, metric), to, "clock")
    plots.save(plots.accuracy_against_clock(on_clock, table, metric), to, "clock")


def _path(text: str) -> Path:
    """Convert a command-line argument to a path; `~` is expanded."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a folder")
    return Path(text).expanduser()


def _write(table: pd.DataFrame, text: str, to: Path, name: str) -> None:
    """Write a table as CSV and as Markdown."""
    table.to_csv(to / f"{name}.csv", index=False)
    (to / f"{name}.md").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 1 for a mistake, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m fedrec_flower compare", description=__doc__)
    parser.add_argument("runs", type=_path, help="folder with run folders at any depth")
    parser.add_argument("--to", type=_path, required=True, help="folder for table and figures")
    parser.add_argument("--metric", help="metric of the figures; default ndcg@10, or rmse")
    parser.add_argument(
        "--choose",
        action="store_true",
        help="rank the settings of a search by validation; no test metrics, no figures",
    )
    parser.add_argument(
        "--published", type=_path, help="table of published values, for the figure `leak`"
    )
    replace_unprintable()
    chosen = parser.parse_args(arguments)
    try:
        if chosen.choose:
            text = choose(chosen.runs, chosen.to, chosen.metric or "ndcg@10")
        else:
            text = compare(chosen.runs, chosen.to, chosen.metric, chosen.published)
        print(text)  # noqa: T201  # the command's output
    except FedrecError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"--to {chosen.to} cannot hold the table ({error.strerror})"
        sys.exit(f"error: {where}: give a folder you may write to, and free space")
