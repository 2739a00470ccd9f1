"""The training samples of one local epoch: interactions and newly drawn negatives.

All trainers call this module, so all see the same samples in the same order. Every draw is a
function of (seed or secret, role, round, client, counter), so a client's samples do not depend on
the other clients of the cohort.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import DataError
from fedrec_flower.core.random import Seed, Streams, below, draw, streams
from fedrec_flower.core.types import IndexArray
from fedrec_flower.data.prepared import starts
from fedrec_flower.training.cohort import Cohort, owners

Task = Literal["ranking", "rating"]

# Counters of one epoch and of one attempt lie in disjoint ranges.
_COUNTERS_PER_EPOCH = 1 << 36
_COUNTERS_PER_ATTEMPT = 1 << 52
_MAX_ATTEMPTS = 64  # then the negative is drawn among the user's unseen items directly


@dataclass(frozen=True, slots=True)
class Samples:
    """Training samples of one epoch, client after client, shuffled within each client.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's samples begin.
        user: int64 (n,), users counted from the cohort's first.
        item: int64 (n, width), item codes: one item, or a positive item followed by negatives.
        target: float32 (n,), label or raw rating; ones if width is above 1.
        context: int64 (n,), number of the user's first items that the model may use: those before
            the positive item. None if the order does not matter.
    """

    offsets: IndexArray
    user: IndexArray
    item: IndexArray
    target: NDArray[np.float32]
    context: IndexArray | None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws the samples of a cohort.

    Attributes:
        task: "rating" takes every training interaction with its raw rating, "ranking" adds
            negatives.
        width: items in a sample: 1 for one labelled item, more for a positive item with some of
            its negatives; the negatives of an interaction are distributed over several samples.
        num_negatives: negatives per interaction; a multiple of width - 1 if width is above 1.
        num_items: size of the catalogue.
        seed: the seed or secret of all draws; see `seeding`.
    """

    task: Task
    width: int
    num_negatives: int
    num_items: int
    seed: Seed

    @property
    def per_interaction(self) -> int:
        """Number of samples per interaction and epoch."""
        if self.task == "rating":
            return 1
        return 1 + self.num_negatives if self.width == 1 else self.num_negatives // (self.width - 1)

    def draw(
        self,
        cohort: Cohort,
        round_: int,
        epoch: int,
        *,
        in_order: bool = False,
        by_user: bool = False,
    ) -> Samples:
        """Draw one epoch's samples of every client.

        Args:
            cohort: the clients.
            round_: the round.
            epoch: the local epoch.
            in_order: whether samples need a `context`.
            by_user: whether to shuffle a client's users first and then the samples of each user,
                so that a batch needs the histories of few users.

        Raises:
            DataError: if ratings are required and absent, or a user has interacted with the whole
                catalogue, so that no negative exists.
        """
        place = cohort.place if in_order else None
        if self.task == "rating":
            samples = _ratings(cohort, place)
        else:
            negative = self._negatives(cohort, round_, epoch)
            if self.width == 1:
                samples = _labelled(cohort, negative, self.num_negatives, place)
            else:
                lists = negative.reshape(-1, self.width - 1)
                samples = _lists(cohort, lists, self.per_interaction, place)
        return self._shuffled(samples, cohort, round_, epoch, by_user=by_user)

    def dropout_mask(
        self, cohort: Cohort, sizes: IndexArray, round_: int, epoch: int, share: float
    ) -> NDArray[np.bool_]:
        """Draw the input dropout of one local epoch, for models with histories.

        Args:
            cohort: the clients.
            sizes: int64 (num_clients,), number of history entries of each client.
            round_: the round.
            epoch: the local epoch.
            share: the expected share of entries that stay, in (0, 1].

        Returns:
            bool (sizes.sum(),), True for entries that stay, one client's after another's.
        """
        stream, counter = _addresses(self.seed, "input-dropout", cohort, sizes, round_, epoch)
        # The 53 bits that a float64 holds.
        uniform = (draw(stream, counter) >> np.uint64(11)) * 2.0**-53
        stays: NDArray[np.bool_] = uniform < share
        return stays

    def noise(
        self, cohort: Cohort, round_: int, epoch: int, dim: int
    ) -> NDArray[np.float32] | None:
        """Standard normal draws of a local epoch, float32 (num_users, dim); None if dim is 0."""
        if not dim:
            return None
        from scipy.special import ndtri  # imported here: few models need noise

        sizes = np.diff(cohort.user_offsets) * dim
        stream, counter = _addresses(self.seed, "latent-noise", cohort, sizes, round_, epoch)
        # Half a step is added: no draw is 0, whose quantile is not finite.
        uniform = ((draw(stream, counter) >> np.uint64(12)) + 0.5) * 2.0**-52
        normal: NDArray[np.float64] = ndtri(uniform)
        return normal.astype(np.float32).reshape(-1, dim)

    def _negatives(self, cohort: Cohort, round_: int, epoch: int) -> IndexArray:
        """int64 (interactions * num_negatives,): uniform among each user's unseen items."""
        seen = self._seen(cohort)
        user = np.repeat(cohort.user, self.num_negatives)
        sizes = cohort.num_examples * self.num_negatives
        stream, counter = _addresses(self.seed, "negatives", cohort, sizes, round_, epoch)
        item = below(draw(stream, counter), self.num_items)
        redo = np.flatnonzero(seen[user, item])
        for attempt in range(1, _MAX_ATTEMPTS):
            bits = draw(stream[redo], counter[redo] + attempt * _COUNTERS_PER_ATTEMPT)
            item[redo] = below(bits, self.num_items)
            redo = redo[seen[user[redo], item[redo]]]
            if not len(redo):
                return item
        last_bits = draw(stream[redo], counter[redo] + _MAX_ATTEMPTS * _COUNTERS_PER_ATTEMPT)
        for place, bits in zip(redo, last_bits[:, None], strict=True):
            unseen = np.flatnonzero(~seen[user[place]])
            item[place] = unseen[below(bits, len(unseen))].item()
        return item

    def _seen(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Bool (num_users, num_items), one byte each: the items that are no negatives of a user."""
        seen = np.zeros((cohort.num_users, self.num_items), np.bool_)
        seen[cohort.known_user, cohort.known_item] = True
        if seen.all(axis=1).any():
            raise DataError(
                f"a user has interacted with all {self.num_items} items, so no negative exists: "
                "use a larger catalogue or task=rating"
            )
        return seen

    def _shuffled(
        self, samples: Samples, cohort: Cohort, round_: int, epoch: int, *, by_user: bool
    ) -> Samples:
        """Shuffle within each client: sort by the client's number, then by random bits."""
        sizes = np.diff(samples.offsets)
        client = owners(samples.offsets)
        bits = draw(*_addresses(self.seed, "shuffle", cohort, sizes, round_, epoch))
        order = np.argsort((client.astype(np.uint64) << np.uint64(44)) | (bits >> np.uint64(20)))
        if by_user and cohort.num_users > len(cohort):
            sizes = np.diff(cohort.user_offsets)
            rank = draw(*_addresses(self.seed, "shuffle-users", cohort, sizes, round_, epoch))
            user = samples.user[order]
            order = order[np.lexsort((user, rank[user], client))]
        context = None if samples.context is None else samples.context[order]
        columns = (samples.user[order], samples.item[order], samples.target[order])
        return Samples(samples.offsets, *columns, context)


def _addresses(
    seed: Seed, role: str, cohort: Cohort, sizes: IndexArray, round_: int, epoch: int
) -> tuple[Streams, IndexArray]:
    """Stream and counter of each draw of a local epoch, `sizes` draws per client, for `draw`."""
    stream = streams(seed, role, round_, cohort.clients).repeat(sizes)
    within_client = np.arange(len(stream)) - np.repeat(starts(sizes)[:-1], sizes)
    return stream, within_client + epoch * _COUNTERS_PER_EPOCH


def _ratings(cohort: Cohort, place: IndexArray | None) -> Samples:
    """Each interaction with its rating."""
    if cohort.rating is None:
        raise DataError("task=rating needs ratings, these data are implicit: set task=ranking")
    return Samples(cohort.offsets, cohort.user, cohort.item[:, None], cohort.rating, place)


def _lists(
    cohort: Cohort, negatives: IndexArray, repeats: int, place: IndexArray | None
) -> Samples:
    """Each interaction `repeats` times, each time followed by other negatives of it."""
    positive = np.repeat(cohort.item, repeats)
    user = np.repeat(cohort.user, repeats)
    item = np.concatenate([positive[:, None], negatives], axis=1)
    context = None if place is None else np.repeat(place, repeats)
    ones = np.ones(len(user), np.float32)
    return Samples(cohort.offsets * repeats, user, item, ones, context)


def _labelled(
    cohort: Cohort, negative: IndexArray, num_negatives: int, place: IndexArray | None
) -> Samples:
    """Each client's interactions with label 1, then its negatives with label 0."""
    offsets = cohort.offsets * (1 + num_negatives)
    owner = owners(cohort.offsets)
    positive_places = np.arange(len(owner)) + cohort.offsets[owner] * num_negatives
    negative_owner = np.repeat(owner, num_negatives)
    negative_places = np.arange(len(negative_owner)) + cohort.offsets[1:][negative_owner]

    def merged(of_positives: IndexArray, of_negatives: IndexArray) -> IndexArray:
        column = np.empty(offsets[-1], np.int64)
        column[positive_places] = of_positives
        column[negative_places] = of_negatives
        return column

    user = merged(cohort.user, np.repeat(cohort.user, num_negatives))
    target = np.zeros(len(user), np.float32)
    target[positive_places] = 1
    context = None if place is None else merged(place, np.repeat(place, num_negatives))
    return Samples(offsets, user, merged(cohort.item, negative)[:, None], target, context)
