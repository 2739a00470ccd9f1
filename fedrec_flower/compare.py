"""`python -m fedrec_flower.compare RUNS --to FOLDER`: table and figures of many runs."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from fedrec_flower import plots
from fedrec_flower.errors import FedrecError
from fedrec_flower.results import comparison, load_per_user, load_runs, load_summaries, markdown

_HEADLINE = ("hr@10", "ndcg@10", "hr@10_99neg", "ndcg@10_99neg", "rmse", "mae")


def compare(runs: Path, to: Path, metric: str) -> str:
    """Write `comparison.csv`, `comparison.md` and figures of all completed runs below a folder.

    Args:
        runs: a run folder, or a folder with run folders at any depth.
        to: where the table and the figures go; made if need be.
        metric: the metric that the figures show.

    Returns:
        The table, as Markdown.

    Raises:
        FedrecError: if there is no completed run.
    """
    table = comparison(runs)
    to.mkdir(parents=True, exist_ok=True)
    table.to_csv(to / "comparison.csv", index=False)
    text = markdown(headline(table))
    (to / "comparison.md").write_text(text)
    summaries = load_summaries(runs)
    plots.save(plots.convergence(load_runs(runs), metric), to, "convergence")
    plots.save(plots.comparison(summaries, metric), to, "comparison")
    by_activity = "rmse" if metric == "rmse" else "hr@10"
    plots.save(plots.metric_by_activity(load_per_user(runs), by_activity), to, "activity")
    return text


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """The few columns that a reader compares first.

    Args:
        table: from `results.comparison`: a row per kind of run, `metric` and `metric_sd` columns.

    Returns:
        The columns in which the rows differ, the number of seeds, and the headline metrics as
        "mean ± standard deviation over seeds".
    """
    names = table.columns[: table.columns.get_loc("seeds")]
    telling = [name for name in names if len(set(table[name])) > 1] or ["model"]
    shown = table[[*telling, "seeds"]].copy()
    for metric in _HEADLINE:
        if metric in table:
            pairs = zip(table[metric], table[f"{metric}_sd"], strict=True)
            shown[metric] = [_with_spread(mean, spread) for mean, spread in pairs]
    return shown


def _with_spread(mean: float, spread: float) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.4f}" if pd.isna(spread) else f"{mean:.4f} ± {spread:.4f}"


def main() -> None:
    """Run the command line; exit code 1 for a mistake, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m fedrec_flower.compare", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder with run folders at any depth")
    parser.add_argument("--to", type=Path, required=True, help="folder for table and figures")
    parser.add_argument("--metric", default="ndcg@10", help="metric of the figures")
    chosen = parser.parse_args()
    try:
        print(compare(chosen.runs, chosen.to, chosen.metric))  # noqa: T201  # the command's output
    except FedrecError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
