"""Command line: `python -m fedrec_flower.benchmark`."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fedrec_flower.benchmark.engines import engines_table
from fedrec_flower.benchmark.jobs import jobs_table
from fedrec_flower.benchmark.models import models_table
from fedrec_flower.benchmark.scale import SHAPES, scale_table
from fedrec_flower.benchmark.secure import secure_table
from fedrec_flower.core.files import replace_unprintable
from fedrec_flower.reports.markdown import markdown

_TABLES: dict[str, Callable[[argparse.Namespace], pd.DataFrame]] = {
    "engines": lambda chosen: engines_table(chosen.cohorts, chosen.rounds, chosen.dataset),
    "models": lambda chosen: models_table(chosen.rounds, chosen.dataset),
    "jobs": lambda chosen: jobs_table(chosen.dataset),
    "scale": lambda _: scale_table(SHAPES),
    "secure": lambda _: secure_table(),
}


def main() -> None:
    """Measure, print and save the requested tables."""
    replace_unprintable()
    parser = _parser()
    chosen = parser.parse_args()
    if unknown := set(chosen.tables) - set(_TABLES):
        parser.error(f"unknown tables {sorted(unknown)}; choose from {list(_TABLES)}")
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    for name in chosen.tables:
        _publish(_TABLES[name](chosen), name, chosen.to)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fedrec_flower.benchmark",
        description="Measures the cost of rounds, evaluations and whole commands.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""tables:
  engines  clients per CPU second of each engine, beside a plain PyTorch loop
  models   a round and an evaluation of each model with its defaults
  jobs     whole commands: time to the prompt, memory of all processes
  scale    synthetic data of the size of ML-1M and ML-25M; ten minutes
  secure   secure aggregation: 100 nodes, a table of 1,682 x 64""",
    )
    parser.add_argument(
        "tables", nargs="*", default=["engines"], metavar="TABLE", help=" ".join(_TABLES)
    )
    parser.add_argument(
        "--cohorts", type=int, nargs="+", default=[100, 1_000_000], help="clients per round"
    )
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds per row")
    parser.add_argument("--dataset", default="dataset=ml-100k", help="Hydra overrides")
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
