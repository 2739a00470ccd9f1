"""Each row of the leaderboard against the best one, user by user."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from fedrec_flower.errors import FedrecError
from fedrec_flower.results.leaderboard import FIELD, comparison, completed_once, metrics_of
from fedrec_flower.results.load import load_per_user, load_summaries
from fedrec_flower.results.significance import holm, majority, mcnemar, paired_bootstrap
from fedrec_flower.results.users import column_of, of_users
from fedrec_flower.seeding import generator

_TESTED = re.compile(r"(hr|ndcg)@10(_\d+neg)?")


def leaderboard(path: str | Path) -> pd.DataFrame:
    """The table of `comparison`, with each row tested against the best.

    McNemar's test for HR@10 and a paired bootstrap for NDCG@10. Both count users, and seeds make
    no more of them:

    - NDCG@10: each user speaks with a mean over the seeds they were tested with, and the bootstrap
      resamples users. What is tested is what the table shows, the mean over users and seeds (but
      for their weights, where a split holds out some users more often than others).
    - HR@10: McNemar's exact test needs a yes or no of each user, so it compares runs of the same
      seed, and the p-values of the seeds are combined by `majority`. To let seeds vote on each
      user first would test another rate than the table shows: that of a jury of runs.

    The best row is the one with the highest mean of that metric, and Holm's correction is over
    all rows that it is compared with: those of its dataset, task and protocol. That the best was
    found on the same users flatters it a little.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        The table with `ndcg@10_p` (corrected) and `ndcg@10_p_raw`, likewise `hr@10` and both
        against sampled negatives; missing for the best row, for a row without rivals, for
        runs without ranks of users, and for HR@10 of models with no seed in common.

    Raises:
        FedrecError: if there is no completed run, or rows that compete have unequal splits.
    """
    table, per_user = comparison(path), load_per_user(path)
    _require_equal_splits(completed_once(load_summaries(path)))
    for metric in [name for name in metrics_of(table) if _TESTED.fullmatch(name)]:
        users = _of_users(per_user, metric)
        fields = [field for _, field in table[table[metric].notna()].groupby(FIELD)]
        found = [p for field in fields for p in _p_values(field, users, metric)]
        columns = pd.DataFrame(found, columns=["row", "p", "p_raw"]).set_index("row")
        place = list(table).index(f"{metric}_sd") + 1 + (f"{metric}_se" in table)
        for name in ("p_raw", "p"):
            table.insert(place, f"{metric}_{name}", columns[name].reindex(table.index))
    return table


def _p_values(
    field: pd.DataFrame, users: pd.DataFrame, metric: str
) -> Iterator[tuple[int, float, float]]:
    """Row, corrected p and p of every row but the best."""
    rivals = field[field["configuration"].isin(users.columns.unique("configuration"))]
    if rivals.empty:
        return
    ours = {row: users[name].dropna(how="all") for row, name in rivals["configuration"].items()}
    if not _same_users(list(ours.values())):
        raise FedrecError(
            f"{' and '.join(rivals['label'])} were not tested on the same users: compare them "
            "apart, in folders of their own"
        )
    best = rivals[metric].idxmax()
    others = [row for row in rivals.index if row != best]
    test = _hits_p if metric.startswith("hr") else _gains_p
    raw = [test(ours[best], ours[row]) for row in others]
    yield from zip(others, holm(raw), raw, strict=True)


def _same_users(ours: list[pd.DataFrame]) -> bool:
    """Whether rivals were tested on the same users, which may be others with another seed."""
    tested = pd.concat(ours, axis="columns").notna()
    of_seeds = [tested[[seed]] for seed in dict.fromkeys(tested)]
    in_seeds = all((of.any(axis="columns") == of.all(axis="columns")).all() for of in of_seeds)
    return in_seeds and all(users.index.equals(ours[0].index) for users in ours)


def _hits_p(best: pd.DataFrame, other: pd.DataFrame) -> float:
    seeds = [seed for seed in best if seed in other]
    return majority(
        [
            mcnemar(*(users[seed].dropna().to_numpy(bool) for users in (best, other)))
            for seed in seeds
        ]
    )


def _gains_p(best: pd.DataFrame, other: pd.DataFrame) -> float:
    one, another = (users.mean(axis="columns").to_numpy() for users in (best, other))
    # The same resamples for every pair, whoever else is in the table.
    return paired_bootstrap(one, another, generator(0, "paired-bootstrap"))


def _of_users(per_user: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of each user (a row), for each configuration and seed (a column)."""
    keys = ["configuration", "seed"]
    if column_of(metric) not in per_user:
        return pd.DataFrame(columns=pd.MultiIndex.from_tuples([], names=keys))
    table = of_users(per_user, metric).pivot_table("total", "user_id", keys)
    # The bootstrap draws users by their place: ids that are numbers stand in numeric order.
    return table.loc[sorted(table.index, key=_in_order)]


def _in_order(user_id: str) -> tuple[int, str]:
    is_number = user_id.isascii() and user_id.isdigit()
    return (int(user_id) if is_number else sys.maxsize, user_id)


def _require_equal_splits(runs: pd.DataFrame) -> None:
    ranked = runs["task"] == "ranking"  # ratings are not tested, and come in folds
    known = runs[ranked & runs["split_sha256"].notna()]
    for _, rivals in known.groupby(FIELD):
        for seed, alike in rivals.groupby("seed"):
            distinct = alike.drop_duplicates("split_sha256")
            if len(distinct) > 1:
                told = [f"{row['label']} ({row['run']})" for _, row in distinct.iterrows()]
                raise FedrecError(
                    f"{told[0]} and {told[1]} were tested on unequal splits with seed {seed}: "
                    "compare them apart, in folders of their own"
                )
        _require_equal_seeds(rivals)


def _require_equal_seeds(rivals: pd.DataFrame) -> None:
    """Where the split follows the seed, other seeds are other test items."""
    seeds = {str(label): set(of_row["seed"]) for label, of_row in rivals.groupby("label")}
    everybody = set(rivals["seed"])
    lacking = [label for label in seeds if seeds[label] != everybody]
    if lacking and len(set(rivals["split_sha256"])) > 1:
        missing = min(everybody - seeds[lacking[0]])
        raise FedrecError(
            f"{lacking[0]} did not run with seed {missing} as others did, but the split follows "
            "the seed: run all with the same seeds"
        )
