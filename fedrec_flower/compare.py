"""`python -m fedrec_flower.compare RUNS --to FOLDER`: from run folders to a leaderboard."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from fedrec_flower import plots
from fedrec_flower.errors import FedrecError
from fedrec_flower.results import (
    choices_told,
    choosing,
    headline,
    leaderboard,
    load_per_user,
    load_runs,
    load_summaries,
    readable,
)


def compare(runs: Path, to: Path, metric: str | None, published: Path | None = None) -> str:
    """Write `comparison.csv`, `comparison.md` and figures of all completed runs below a folder.

    The figures: `comparison` (the headline metrics), `megabytes` (accuracy against traffic; where
    anything was sent), `convergence` (accuracy against rounds) and `activity` (whom it serves).

    Args:
        runs: a run folder, or a folder with run folders at any depth.
        to: where the table and the figures go; made if need be.
        metric: the metric that the figures show; None for the first headline metric there is.
        published: a table of `results/published`; adds the figure `leak`, what others published
            beside ours with and without the leak.

    Returns:
        The table, as Markdown.

    Raises:
        FedrecError: if there is no completed run, or runs cannot be compared.
    """
    table = leaderboard(runs)
    text = readable(table)
    to.mkdir(parents=True, exist_ok=True)
    table.to_csv(to / "comparison.csv", index=False)
    (to / "comparison.md").write_text(text, encoding="utf-8")
    shown = metric or next(iter(headline(table)), "ndcg@10")
    _draw(runs, to, shown, headline(table))
    if published is not None:
        plots.save(plots.leak(load_summaries(runs), pd.read_csv(published)), to, "leak")
    return text


def choose(runs: Path, to: Path, metric: str) -> str:
    """Write `choices.csv` and `choices.md`: what a search found, by validation alone.

    Args:
        runs: a folder with run folders at any depth.
        to: where the tables go; made if need be.
        metric: the validation metric that decides.

    Returns:
        The table, as Markdown.

    Raises:
        FedrecError: if no completed run has the metric.
    """
    table = choosing(runs, metric)
    text = choices_told(table)
    to.mkdir(parents=True, exist_ok=True)
    table.to_csv(to / "choices.csv", index=False)
    (to / "choices.md").write_text(text, encoding="utf-8")
    return text


def _draw(runs: Path, to: Path, metric: str, headlines: list[str]) -> None:
    summaries, per_user = load_summaries(runs), load_per_user(runs)
    column = f"test.{metric}"
    ours = summaries[summaries[column].notna()] if column in summaries else summaries
    measured = set(ours.dropna(axis="columns", how="all")) - {column}
    beside = [name for name in headlines if f"test.{name}" in measured]
    by_activity = "rmse" if metric in ("rmse", "mae") else "hr@10"
    plots.save(plots.comparison(summaries, metric, *beside), to, "comparison")
    plots.save(plots.convergence(load_runs(runs), metric), to, "convergence")
    plots.save(plots.metric_by_activity(per_user, by_activity), to, "activity")
    if plots.sends_anything(ours):
        plots.save(plots.accuracy_against_megabytes(ours, metric), to, "megabytes")


def main() -> None:
    """Run the command line; exit code 1 for a mistake, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m fedrec_flower.compare", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder with run folders at any depth")
    parser.add_argument("--to", type=Path, required=True, help="folder for table and figures")
    parser.add_argument("--metric", help="metric of the figures; default ndcg@10, or rmse")
    parser.add_argument(
        "--choose",
        action="store_true",
        help="a search's settings by validation, no test, no figures",
    )
    parser.add_argument("--published", type=Path, help="table of published figures, for the leak")
    chosen = parser.parse_args()
    try:
        if chosen.choose:
            text = choose(chosen.runs, chosen.to, chosen.metric or "ndcg@10")
        else:
            text = compare(chosen.runs, chosen.to, chosen.metric, chosen.published)
        print(text)  # noqa: T201  # the command's output
    except FedrecError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
