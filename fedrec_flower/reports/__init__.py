"""Tables and figures of run folders. Only files are read."""

from fedrec_flower.reports.activity import by_activity
from fedrec_flower.reports.headline import leaderboard_markdown
from fedrec_flower.reports.leaderboard import comparison
from fedrec_flower.reports.load import (
    load_per_user,
    load_runs,
    load_settings,
    load_summaries,
    read_table,
)
from fedrec_flower.reports.markdown import final_table, markdown

__all__ = [
    "by_activity",
    "comparison",
    "final_table",
    "leaderboard_markdown",
    "load_per_user",
    "load_runs",
    "load_settings",
    "load_summaries",
    "markdown",
    "read_table",
]
