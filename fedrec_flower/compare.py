"""`python -m fedrec_flower.compare RUNS --to FOLDER`: table and figures of many runs."""

import argparse
import sys
from pathlib import Path

from fedrec_flower import plots
from fedrec_flower.errors import FedrecError
from fedrec_flower.results import comparison, load_per_user, load_runs, load_summaries, markdown


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
    text = markdown(table)
    (to / "comparison.md").write_text(text)
    summaries = load_summaries(runs)
    plots.save(plots.convergence(load_runs(runs), metric), to, "convergence")
    plots.save(plots.comparison(summaries, metric), to, "comparison")
    by_activity = "rmse" if metric == "rmse" else "hr@10"
    plots.save(plots.metric_by_activity(load_per_user(runs), by_activity), to, "activity")
    return text


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
