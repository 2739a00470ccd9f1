"""Run folders: text tables written by a run, and read back into tidy frames."""

from fedrec_flower.results.load import load_per_user, load_runs, load_summaries
from fedrec_flower.results.run_folder import Phase, RunFolder
from fedrec_flower.results.tables import comparison, final_table, markdown

__all__ = [
    "Phase",
    "RunFolder",
    "comparison",
    "final_table",
    "load_per_user",
    "load_runs",
    "load_summaries",
    "markdown",
]
