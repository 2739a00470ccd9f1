"""What a client trains on in one epoch: its interactions and freshly drawn negatives."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import DataError
from fedrec_flower.prepared import ClientData, Columns

Negatives = Literal["honest", "legacy"]


@dataclass(frozen=True, slots=True)
class Samples:
    """Training samples of one client.

    Attributes:
        user: int64 (n,), the client's users counted from zero.
        item: int64 (n, width), item codes; width is 2 for pairs (liked, not liked), else 1.
        target: float32 (n,), label or raw rating; ones for pairs.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    target: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.user)


def rating_samples(data: ClientData) -> Samples:
    """Every training interaction with its raw rating."""
    if data.train.rating is None:
        raise DataError("task=rating needs ratings, these data are implicit: set task=ranking")
    item = data.train.item.astype(np.int64)[:, None]
    return Samples(data.train.users(), item, np.array(data.train.rating, np.float32))


def draw_samples(
    data: ClientData,
    num_items: int,
    num_negatives: int,
    rng: np.random.Generator,
    *,
    pairwise: bool,
    pool: Negatives,
) -> Samples:
    """Every training interaction, and `num_negatives` negatives for each.

    Args:
        data: the client's data.
        num_items: size of the catalogue.
        num_negatives: negatives per interaction.
        rng: draws the negatives.
        pairwise: one pair (liked, not liked) per negative instead of one labelled item each.
        pool: "honest" draws from the items not in the user's train part. "legacy" also spares
            the held-out items, which leaks them: only to reproduce published tables.
    """
    user, liked = data.train.users(), data.train.item.astype(np.int64)
    others = np.repeat(user, num_negatives)
    known = [data.train] if pool == "honest" else [data.train, data.validation, data.test]
    disliked = _draw_unknown(others, known, num_items, rng)
    if pairwise:
        pairs = np.stack([np.repeat(liked, num_negatives), disliked], axis=1)
        return Samples(others, pairs, np.ones(len(pairs), np.float32))
    target = np.zeros(len(user) + len(others), np.float32)
    target[: len(user)] = 1
    item = np.concatenate([liked, disliked])[:, None]
    return Samples(np.concatenate([user, others]), item, target)


def _draw_unknown(
    user: NDArray[np.int64], known: list[Columns], num_items: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw for each entry of `user` an item uniformly among those its user does not know."""
    keys = np.sort(np.concatenate([part.users() * num_items + part.item for part in known]))
    if len(keys):
        _require_unknown(keys // num_items, user, num_items)
    item = rng.integers(0, num_items, len(user))
    redo = np.flatnonzero(_contains(keys, user * num_items + item))
    while len(redo):
        item[redo] = rng.integers(0, num_items, len(redo))
        redo = redo[_contains(keys, user[redo] * num_items + item[redo])]
    return item


def _require_unknown(owner: NDArray[np.int64], user: NDArray[np.int64], num_items: int) -> None:
    """Refuse a user who knows the whole catalogue: rejection would never end."""
    if len(user) and np.bincount(owner).max() >= num_items:
        reason = f"a user has interacted with all {num_items} items, so no negative exists"
        raise DataError(f"{reason}: use a larger catalogue or task=rating")


def _contains(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each wanted key stands in the sorted keys."""
    if not len(keys):
        return np.zeros(len(wanted), np.bool_)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.asarray(keys[place] == wanted)
