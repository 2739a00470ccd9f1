"""Attacks that promote items, by the strategies that defend against them."""

from pathlib import Path
from typing import Any

import pandas as pd

from fedrec_flower.errors import FedrecError
from fedrec_flower.results.configuration import Settings, choice, differing, said
from fedrec_flower.results.leaderboard import completed_once
from fedrec_flower.results.load import load_settings, load_summaries
from fedrec_flower.results.tables import markdown

# From nobody to those who know most; others stand behind them.
_BY_MEANS = ("watch", "random", "bandwagon", "popular", "explicit_boosting", "fedrecattack")
_EXPOSURE = "attack.exposure@"
_SHOWN = ("attack.", "strategy.")


def attacked(path: str | Path) -> pd.DataFrame:
    """Put what each attack achieved against each strategy side by side.

    Args:
        path: a folder with run folders at any depth; completed ones that watched targets count.

    Returns:
        One row per attack and strategy: dataset, attack and strategy (with what sets them apart
        from namesakes), malicious (share of the clients), exposure and ndcg (of honest users, at
        the round that validation selected; means over seeds), k (places of the lists) and seeds
        (how many). Attacks stand from those that know least; empty if no run watched targets.

    Raises:
        FedrecError: if there is no run that can be read, or lists of several lengths.
    """
    runs, settings = completed_once(load_summaries(path)), load_settings(path)
    measured = [str(name) for name in runs if str(name).startswith(_EXPOSURE)]
    if not measured:
        return pd.DataFrame()
    if len(measured) > 1:
        told = ", ".join(name.removeprefix("attack.") for name in measured)
        raise FedrecError(f"runs below {path} measured {told}: compare lists of one length alone")
    known = runs[runs[measured[0]].notna()]
    every = [settings[key] for key in set(known["configuration"])]
    rows = [
        _named(settings[str(key)], every) | _measured(repeated, measured[0])
        for key, repeated in known.groupby("configuration")
    ]
    order = ["place", "malicious", "attack", "strategy"]
    table = pd.DataFrame(rows).sort_values(order, kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def attacked_told(table: pd.DataFrame) -> str:
    """Write the table of `attacked` as Markdown: a row an attack, a column a strategy."""
    k, seeds = table["k"].iloc[0], ", ".join(map(str, sorted(set(table["seeds"]))))
    cells = table["exposure"].map("{:.1%}".format) + table["ndcg"].map(" ({:.4f})".format)
    wide = table.assign(cell=cells, malicious=table["malicious"].map("{:.0%}".format)).pivot_table(
        index=["attack", "malicious"], columns="strategy", values="cell", aggfunc="first",
        sort=False,
    )  # fmt: skip
    return markdown(wide.reset_index()) + (
        f"\nHow many honest users find a promoted item that they never had among their {k} best, "
        f"mean over the promoted items; in brackets NDCG@{k} of honest users on test. At the round "
        f"that validation selected; seeds: {seeds}. Exposures are lower bounds: a stronger attack "
        "may achieve more.\n"
    )


def _named(settings: Settings, every: list[Settings]) -> dict[str, Any]:
    name = str(settings.get("attack.name"))
    # The share of malicious clients has a column of its own.
    alike = [{k: v for k, v in each.items() if k != "attack.malicious"} for each in every]
    rest = [key for key in differing(every) if not key.startswith(_SHOWN)]
    others = [said(settings, key) for key in rest if not key.endswith("_target_")]
    return {
        "dataset": settings.get("dataset.name"),
        "attack": choice(settings, "attack", alike),
        "malicious": float(settings.get("attack.malicious", 0)),
        "strategy": ", ".join([choice(settings, "strategy", every), *others]),
        "place": _BY_MEANS.index(name) if name in _BY_MEANS else len(_BY_MEANS),
    }


def _measured(runs: pd.DataFrame, exposure: str) -> dict[str, Any]:
    k = int(exposure.removeprefix(_EXPOSURE))
    return {
        "exposure": float(runs[exposure].mean()),
        "ndcg": float(runs[f"attack.ndcg@{k}_honest"].mean()),
        "k": k,
        "seeds": len(runs),
    }
