"""Run folders: text tables written by a run, and read back into tidy frames."""

from fedrec_flower.checkpoints import Checkpoint
from fedrec_flower.results.activity import activity_told, by_activity
from fedrec_flower.results.attacked import attacked, attacked_told
from fedrec_flower.results.choosing import choices_told, choosing
from fedrec_flower.results.clock import clock, clock_told, timed
from fedrec_flower.results.configuration import varied
from fedrec_flower.results.goal import way_to_goal, way_told
from fedrec_flower.results.leaderboard import comparison
from fedrec_flower.results.load import (
    load_per_user,
    load_runs,
    load_settings,
    load_summaries,
    read_table,
)
from fedrec_flower.results.paired import leaderboard
from fedrec_flower.results.readable import headline, readable
from fedrec_flower.results.resuming import claimed, resume, told_before
from fedrec_flower.results.run_folder import Phase, RunFolder
from fedrec_flower.results.skew import skewed, skewed_told
from fedrec_flower.results.tables import final_table, markdown
from fedrec_flower.results.transfer import SavedModel, taken_over

__all__ = [
    "Checkpoint",
    "Phase",
    "RunFolder",
    "SavedModel",
    "activity_told",
    "attacked",
    "attacked_told",
    "by_activity",
    "choices_told",
    "choosing",
    "claimed",
    "clock",
    "clock_told",
    "comparison",
    "final_table",
    "headline",
    "leaderboard",
    "load_per_user",
    "load_runs",
    "load_settings",
    "load_summaries",
    "markdown",
    "read_table",
    "readable",
    "resume",
    "skewed",
    "skewed_told",
    "taken_over",
    "timed",
    "told_before",
    "varied",
    "way_to_goal",
    "way_told",
]
