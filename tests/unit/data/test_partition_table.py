"""The table of how data fell to clients, by hand."""

import numpy as np
import pandas as pd

from fedrec_flower.data.interactions import Interactions, Part, Partition, Split
from fedrec_flower.data.partitions.statistics import partition_table

TRAIN, VALIDATION, TEST = Part.TRAIN, Part.VALIDATION, Part.TEST

# Users 0 and 1 share the client "left", user 2 is alone in "right" and has nothing to train on.
PARTITION = Partition(np.array([0, 0, 1], dtype=np.int32), np.array(["left", "right"]))
SPLIT = Split(np.array([TRAIN, TRAIN, TEST, TRAIN, VALIDATION, TEST], dtype=np.int8))


def interactions(*, rated: bool, items: pd.DataFrame) -> Interactions:
    return Interactions(
        user=np.array([0, 0, 0, 1, 1, 2], dtype=np.int32),
        item=np.array([0, 1, 2, 1, 2, 0], dtype=np.int32),
        rating=np.array([1, 2, 5, 5, 5, 5], dtype=np.float32) if rated else None,
        timestamp=None,
        user_ids=np.array([10, 20, 30]),
        item_ids=np.array([100, 200, 300]),
        items=items,
    )


def test_every_client_is_described() -> None:
    items = pd.DataFrame({"genres": ["Drama", "Action|Comedy", "Drama"]})
    table = partition_table(interactions(rated=True, items=items), SPLIT, PARTITION)
    expected = pd.DataFrame(
        {
            "client": [0, 1],
            "name": ["left", "right"],
            "num_users": [2, 1],
            "num_train": [3, 0],
            "num_validation": [1, 0],
            "num_test": [1, 1],
            "num_items": [2, 0],
            "mean_rating": [(1 + 2 + 5) / 3, np.nan],
            "top_genre": ["Action", None],
        }
    )
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_what_the_data_do_not_have_is_no_column() -> None:
    table = partition_table(interactions(rated=False, items=pd.DataFrame()), SPLIT, PARTITION)
    assert table.columns.tolist() == [
        "client",
        "name",
        "num_users",
        "num_train",
        "num_validation",
        "num_test",
        "num_items",
    ]
