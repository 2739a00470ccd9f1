"""What a leak is worth: published, reproduced with it, and honest without it."""

import pandas as pd
from matplotlib.figure import Figure

from fedrec_flower.errors import FedrecError
from fedrec_flower.frames import once
from fedrec_flower.plots.naming import chance_level, datasets, leaky, metric_label
from fedrec_flower.plots.style import COLOURS, FAINT, INK, canvas

_METRICS = {"hr@10_99neg": ("hr", 10), "ndcg@10_99neg": ("ndcg", 10)}
_BARS = ("published", "reproduced, leaky", "honest")
_WIDTH = 0.26


def leak(summaries: pd.DataFrame, published: pd.DataFrame, metric: str = "hr@10_99neg") -> Figure:
    """Draw for each model the published figure, ours with the leak and ours without.

    Args:
        summaries: from `load_summaries`; models with completed runs of both protocols count.
        published: a table of `results/published`: model, dataset, metric, k, value, confidence.
        metric: `hr@10_99neg` or `ndcg@10_99neg`, test, at the round that validation selected.

    Returns:
        The figure; bars of ours carry one standard deviation over seeds.

    Raises:
        FedrecError: if no model has runs of both protocols.
    """
    done = once(summaries[summaries["status"] == "completed"])
    done = done.assign(leaky=leaky(done), value=done[f"test.{metric}"])
    both = done.groupby("model")["leaky"].nunique()
    models = [str(name) for name in both[both > 1].index]
    if not models:
        raise FedrecError(
            "no model has runs of both protocols: sweep split.negatives=legacy,honest, as "
            "experiment=legacy_pfedrec does"
        )
    figure, axes = canvas(
        f"What the leak is worth{datasets(done)}",
        "the same settings; honest: held-out items may be drawn as training negatives; "
        "bars: sd over seeds",
        x="", y=metric_label(metric), size=(2.6 + 2.2 * len(models), 4.4),
    )  # fmt: skip
    for place, model in enumerate(models):
        runs = done[done["model"] == model]
        ours = [runs.loc[runs["leaky"] == told, "value"] for told in (True, False)]
        values = [_published(published, model, str(runs["dataset"].iloc[0]), metric)]
        values += [float(each.mean()) for each in ours]
        errors = [0.0, *(float(each.std()) if len(each) > 1 else 0.0 for each in ours)]
        for bar, (value, error) in enumerate(zip(values, errors, strict=True)):
            if pd.isna(value):
                continue
            x = place + (bar - 1) * _WIDTH
            colour = (FAINT, COLOURS[1], COLOURS[0])[bar]
            axes.bar(x, value, 0.9 * _WIDTH, color=colour, label=_BARS[bar] if not place else None)
            axes.errorbar(x, value, yerr=error or None, color=INK, capsize=3)
            axes.annotate(
                f"{value:.3f}", (x, value + error), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize=9, color=INK,
            )  # fmt: skip
    axes.set_xticks(range(len(models)), models)
    axes.set_xlim(-0.55, len(models) - 0.3)  # room for a word beside the last bar
    axes.set_ylim(0, 1.12)
    axes.grid(visible=False, axis="x")
    chance = chance_level(metric)
    if chance is not None:
        axes.axhline(chance, color=FAINT, linewidth=1.0, linestyle=":")
        axes.annotate(
            "chance", (1, chance), xycoords=("axes fraction", "data"), xytext=(-2, 3),
            textcoords="offset points", ha="right", fontsize=9, color=FAINT,
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right", ncols=3)
    return figure


def _published(table: pd.DataFrame, model: str, dataset: str, metric: str) -> float:
    """The published figure of a model; NaN where none is known."""
    kind, k = _METRICS[metric]
    found = table[
        (table["model"].str.lower() == model)
        & (table["dataset"] == dataset)
        & (table["metric"] == kind)
        & (table["k"] == k)
        & table["protocol"].str.contains("99 negatives")
        & ~table["confidence"].str.startswith("measured by this project")
    ]
    return float(found["value"].iloc[0]) if len(found) else float("nan")
