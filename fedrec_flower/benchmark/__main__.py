"""Command line: `python -m fedrec_flower.benchmark`."""

import argparse
import logging
from pathlib import Path

import pandas as pd

from fedrec_flower.benchmark.rounds import rounds_table
from fedrec_flower.benchmark.scale import SHAPES, scale_table
from fedrec_flower.benchmark.secure import secure_table
from fedrec_flower.core.files import replace_unprintable
from fedrec_flower.reports.markdown import markdown


def main() -> None:
    """Measure, print and save the requested tables."""
    replace_unprintable()
    chosen = _parser().parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if chosen.cohorts:
        table = rounds_table(chosen.cohorts, chosen.rounds, chosen.dataset)
        _publish(table, "benchmark", chosen.to)
    if chosen.scale:
        _publish(scale_table(SHAPES), "scale", chosen.to)
    if chosen.secure:
        _publish(secure_table(), "secure", chosen.to)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fedrec_flower.benchmark", description="Measures the cost of a round."
    )
    parser.add_argument(
        "--cohorts",
        type=int,
        nargs="*",
        default=[100, 1_000_000],
        help="clients per round; without a number, the table of engines and models is left out",
    )
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds per row")
    parser.add_argument("--dataset", default="dataset=ml-100k", help="Hydra overrides")
    parser.add_argument(
        "--scale",
        action="store_true",
        help="add the scale table: synthetic data of the size of ML-1M and ML-25M; ten minutes",
    )
    parser.add_argument(
        "--secure",
        action="store_true",
        help="add the table of secure aggregation: 100 nodes, a table of 1,682 x 64",
    )
    parser.add_argument("--to", type=Path, help="output folder: a .csv and a .md file per table")
    return parser


def _publish(table: pd.DataFrame, name: str, folder: Path | None) -> None:
    text = markdown(table)
    print(text)  # noqa: T201  # output of the command
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
