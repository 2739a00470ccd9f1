"""Table of the data of each client."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.data.features import Genres
from fedrec_flower.data.interactions import Interactions, Part, Partition, Split


def partition_table(interactions: Interactions, split: Split, partition: Partition) -> pd.DataFrame:
    """Describe each client.

    Args:
        interactions: n interactions.
        split: labels of those n interactions.
        partition: the client of each user.

    Returns:
        One row per client: client (code), name, num_users, num_train, num_validation, num_test
        (interactions), num_items (distinct items in train); with ratings also mean_rating (of
        train, raw rating units), with genres also top_genre (most consumed in train; missing for
        a client that consumed none).
    """
    client_of = partition.client_of_user[interactions.user]
    train = split.rows(Part.TRAIN)
    client, item = client_of[train], interactions.item[train]
    table = pd.DataFrame({"client": np.arange(partition.num_clients)})
    table["name"] = partition.client_names
    table["num_users"] = _count(partition.client_of_user, len(table))
    for part in Part:
        table[f"num_{part.name.lower()}"] = _count(client_of[split.rows(part)], len(table))
    table["num_items"] = _count_distinct(client, item, len(table))
    if interactions.rating is not None:
        table["mean_rating"] = _means(client, interactions.rating[train], len(table))
    genres = Genres.read(interactions)
    if len(genres.names) > 0:
        top = genres.top(client, item, len(table))
        table["top_genre"] = pd.Series(genres.names).reindex(top).to_numpy()
    return table


def _count(client: NDArray[np.int32], num_clients: int) -> NDArray[np.int64]:
    """Count the occurrences of each client, int64 (num_clients,)."""
    return np.bincount(client, minlength=num_clients)


def _count_distinct(
    client: NDArray[np.int32], item: NDArray[np.int32], num_clients: int
) -> NDArray[np.int64]:
    """Count the distinct items of each client, int64 (num_clients,)."""
    # Two int32 codes in one int64; np.sort of those is many times faster than np.unique.
    pairs = np.sort((client.astype(np.int64) << 32) | item)
    is_new = np.diff(pairs, prepend=-1) != 0
    return np.bincount(pairs[is_new] >> 32, minlength=num_clients)


def _means(
    client: NDArray[np.int32], rating: NDArray[np.float32], num_clients: int
) -> NDArray[np.float64]:
    """The mean rating of each client, float64 (num_clients,); NaN for a client without any."""
    sums = np.bincount(client, weights=rating, minlength=num_clients)
    counts = np.bincount(client, minlength=num_clients)
    means = np.full(num_clients, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
