"""The leak's figure: the bars it draws are the figures it is given."""

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.figures.communication_cost import protocol_leak

PUBLISHED = pd.DataFrame(
    {
        "model": ["PFedRec", "PFedRec"],
        "dataset": "ml-100k",
        "protocol": "99 negatives",
        "metric": "hr",
        "k": 10,
        "value": [0.5, 0.716],
        "confidence": ["measured by this project's authors", "issue text"],
    }
)


def runs(*protocols: str) -> pd.DataFrame:
    rows = [
        {
            "model": "pfedrec",
            "dataset": "ml-100k",
            "status": "completed",
            "protocol": f"leave_one_out, {protocol}",
            "test.hr@10_99neg": (0.7 if protocol == "legacy" else 0.5) + 0.02 * seed,
        }
        for protocol in protocols
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_its_bars_are_the_published_figure_and_both_means_over_seeds() -> None:
    (axes,) = protocol_leak(runs("legacy", "honest"), PUBLISHED).axes
    assert heights(axes) == pytest.approx([0.716, 0.71, 0.51])


def test_without_a_published_figure_ours_stand_alone() -> None:
    (axes,) = protocol_leak(runs("legacy", "honest"), PUBLISHED.head(1)).axes
    assert heights(axes) == pytest.approx([0.71, 0.51])


def test_one_protocol_alone_shows_no_leak() -> None:
    with pytest.raises(FedrecError, match=r"split\.negatives=legacy,honest"):
        protocol_leak(runs("honest"), PUBLISHED)


def test_a_run_made_again_moves_no_bar() -> None:
    both = runs("legacy", "honest")
    told = both.assign(run=both.index.astype("str"), configuration=both.index)
    again = told.tail(1).assign(run="again")
    (axes,) = protocol_leak(pd.concat([told, again], ignore_index=True), PUBLISHED).axes
    assert heights(axes) == pytest.approx([0.716, 0.71, 0.51])
