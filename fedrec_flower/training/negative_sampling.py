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
from fedrec_flower.core.random import Seed, below, draw, streams
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
    """Training samples of one epoch, client after client, in random order within each client.

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
        step_size: samples that a step takes; None for all of an epoch. Samples that one step takes
            are not shuffled.
    """

    task: Task
    width: int
    num_negatives: int
    num_items: int
    seed: Seed
    step_size: int | None

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
            negative = self.negatives(cohort, round_, epoch)
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
        bits = _draws(self.seed, "input-dropout", cohort, sizes, round_, epoch)
        # The 53 bits that a float64 holds.
        uniform = (bits >> np.uint64(11)) * 2.0**-53
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
        bits = _draws(self.seed, "latent-noise", cohort, sizes, round_, epoch)
        # Half a step is added: no draw is 0, whose quantile is not finite.
        uniform = ((bits >> np.uint64(12)) + 0.5) * 2.0**-52
        normal: NDArray[np.float64] = ndtri(uniform)
        return normal.astype(np.float32).reshape(-1, dim)

    def negatives(self, cohort: Cohort, round_: int, epoch: int) -> IndexArray:
        """Draw the negatives of one epoch, uniform among each user's unseen items.

        Returns:
            int64 (interactions * num_negatives,), item codes.

        Raises:
            DataError: if a user has interacted with the whole catalogue, so that no negative
                exists.
        """
        from fedrec_flower.training.sampling_kernels import draw_items

        offsets, known_item = cohort.known
        for full in np.flatnonzero(np.diff(offsets) >= self.num_items):
            seen = np.unique(known_item[offsets[full] : offsets[full + 1]])
            if len(seen) == self.num_items:
                raise DataError(
                    f"a user has interacted with all {self.num_items} items, so no negative "
                    "exists: use a larger catalogue or task=rating"
                )
        num_items = self.num_items
        item_offsets = cohort.offsets * self.num_negatives
        bits = _draws(self.seed, "negatives", cohort, np.diff(item_offsets), round_, epoch)
        item, redo = draw_items(
            bits, cohort.user, self.num_negatives, offsets, known_item, num_items
        )
        # Of the few that are drawn again: user, stream and counter.
        user = cohort.user[redo // self.num_negatives]
        client = np.searchsorted(item_offsets, redo, side="right") - 1
        stream = streams(self.seed, "negatives", round_, cohort.clients)[client]
        counter = redo - item_offsets[client] + epoch * _COUNTERS_PER_EPOCH
        for attempt in range(1, _MAX_ATTEMPTS):
            if not len(redo):
                return item
            bits = draw(stream, counter + attempt * _COUNTERS_PER_ATTEMPT)
            item[redo], known = draw_items(bits, user, 1, offsets, known_item, num_items)
            redo, user, stream, counter = redo[known], user[known], stream[known], counter[known]
        last_bits = draw(stream, counter + _MAX_ATTEMPTS * _COUNTERS_PER_ATTEMPT)
        for place, u, last in zip(redo, user, last_bits[:, None], strict=True):
            unseen = np.setdiff1d(np.arange(num_items), known_item[offsets[u] : offsets[u + 1]])
            item[place] = unseen[below(last, len(unseen))].item()
        return item

    def order(
        self, cohort: Cohort, offsets: IndexArray, round_: int, epoch: int
    ) -> NDArray[np.int32]:
        """Shuffle the samples of each client that takes more than one step in an epoch.

        Args:
            cohort: the clients.
            offsets: int64 (num_clients + 1,), where each client's samples begin.
            round_: the round.
            epoch: the local epoch.

        Returns:
            int32 (num_samples,): the place of each sample before the shuffle, counted from the
            client's first sample; no rows if no client's samples are shuffled.
        """
        from fedrec_flower.training.sampling_kernels import shuffle

        sizes = np.diff(offsets)
        if self.step_size is None or sizes.max(initial=0) <= self.step_size:
            return np.zeros(0, np.int32)
        bits = _draws(self.seed, "shuffle", cohort, sizes, round_, epoch)
        return shuffle(bits, offsets, self.step_size + 1)

    def _shuffled(
        self, samples: Samples, cohort: Cohort, round_: int, epoch: int, *, by_user: bool
    ) -> Samples:
        """Shuffle the samples of each client, or its users and the samples of each user."""
        within = self.order(cohort, samples.offsets, round_, epoch)
        if not len(within):
            return samples
        client = owners(samples.offsets)
        order = within + samples.offsets[client]
        if by_user and cohort.num_users > len(cohort):
            sizes = np.diff(cohort.user_offsets)
            rank = _draws(self.seed, "shuffle-users", cohort, sizes, round_, epoch)
            user = samples.user[order]
            order = order[np.lexsort((user, rank[user], client))]
        context = None if samples.context is None else samples.context[order]
        columns = (samples.user[order], samples.item[order], samples.target[order])
        return Samples(samples.offsets, *columns, context)


def _draws(
    seed: Seed, role: str, cohort: Cohort, sizes: IndexArray, round_: int, epoch: int
) -> NDArray[np.uint64]:
    """64 random bits for each draw of a local epoch, `sizes` draws per client."""
    from fedrec_flower.training.sampling_kernels import draw_runs

    stream, offsets, first = (
        streams(seed, role, round_, cohort.clients), starts(sizes), epoch * _COUNTERS_PER_EPOCH,
    )  # fmt: skip
    if stream.key is None:
        return draw_runs(stream.start, offsets, np.uint64(first))
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    return draw(stream.repeat(sizes), within + first)


def ratings_of(cohort: Cohort) -> NDArray[np.float32]:
    """The rating of each interaction.

    Raises:
        DataError: if the data have no ratings.
    """
    if cohort.rating is None:
        raise DataError("task=rating needs ratings, these data are implicit: set task=ranking")
    return cohort.rating


def _ratings(cohort: Cohort, place: IndexArray | None) -> Samples:
    """Each interaction with its rating."""
    item = cohort.item[:, None]
    return Samples(cohort.offsets, cohort.user, item, ratings_of(cohort), place)


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
