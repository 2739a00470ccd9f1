"""What clients train on in one epoch: their interactions and freshly drawn negatives.

Both engines call this module, so both see the same samples in the same order; every draw hangs on
(seed or secret, role, round, client, counter) and so on nothing else, not even on who else is in
the cohort.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import DataError
from fedrec_flower.core.random import Seed, Streams, below, draw, streams
from fedrec_flower.data.prepared import starts
from fedrec_flower.training.cohort import Cohort, Index, owners

Task = Literal["ranking", "rating"]

_EPOCH, _ATTEMPT = 1 << 36, 1 << 52  # counters of one epoch, of one attempt: disjoint ranges
_ATTEMPTS = 64  # then a user who knows nearly everything chooses among the rest


@dataclass(frozen=True, slots=True)
class Samples:
    """Training samples of one epoch, client after client, shuffled within each.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's samples begin.
        user: int64 (n,), users counted from the cohort's first.
        item: int64 (n, width), item codes: one, or a liked one before others that are not.
        target: float32 (n,), label or raw rating; ones for several items.
        context: int64 (n,), how many of its user's items each may read, those before the item
            that was liked; None where order does not matter.
    """

    offsets: Index
    user: Index
    item: Index
    target: NDArray[np.float32]
    context: Index | None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws samples; the choices that both engines share.

    Attributes:
        task: "rating" takes every training interaction with its raw rating, "ranking" adds
            negatives.
        width: items in a sample: 1 for one labelled item, more for a liked one and some of its
            negatives, which are dealt out to as many samples as that makes.
        num_negatives: negatives per interaction; a multiple of the places for them in a sample.
        num_items: size of the catalogue.
        seed: what draws follow from; see `seeding`.
    """

    task: Task
    width: int
    num_negatives: int
    num_items: int
    seed: Seed

    @property
    def per_interaction(self) -> int:
        """Samples that one interaction gives rise to in an epoch."""
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
            by_user: whether a client's users are shuffled, and then the samples of each, so that
                a batch is of few users, whose histories it reads.

        Raises:
            DataError: if ratings are asked for and there are none, or a user has interacted
                with the whole catalogue, so that no negative exists.
        """
        place = cohort.place if in_order else None
        if self.task == "rating":
            samples = _ratings(cohort, place)
        else:
            negative = self._negatives(cohort, round_, epoch)
            if self.width == 1:
                samples = _labelled(cohort, negative, self.num_negatives, place)
            else:
                others = negative.reshape(-1, self.width - 1)
                samples = _lists(cohort, others, self.per_interaction, place)
        return self._shuffled(samples, cohort, round_, epoch, by_user=by_user)

    def keep(
        self, cohort: Cohort, sizes: Index, round_: int, epoch: int, share: float
    ) -> NDArray[np.bool_]:
        """Draw what a local epoch leaves in the input of models that read histories.

        Args:
            cohort: the clients.
            sizes: int64 (num_clients,), how many entries each reads.
            round_: the round.
            epoch: the local epoch.
            share: the expected share of entries that stay, in (0, 1].

        Returns:
            bool (sizes.sum(),), one client's entries after another's.
        """
        stream, counter = _addresses(self.seed, "input-dropout", cohort, sizes, round_, epoch)
        # The 53 bits that a float64 holds.
        uniform = (draw(stream, counter) >> np.uint64(11)) * 2.0**-53
        kept: NDArray[np.bool_] = uniform < share
        return kept

    def noise(
        self, cohort: Cohort, round_: int, epoch: int, dim: int
    ) -> NDArray[np.float32] | None:
        """Standard normal draws of a local epoch, float32 (num_users, dim); None for none."""
        if not dim:
            return None
        from scipy.special import ndtri  # here: few models ask for noise

        sizes = np.diff(cohort.user_offsets) * dim
        stream, counter = _addresses(self.seed, "latent-noise", cohort, sizes, round_, epoch)
        # Half a step up: no draw is 0, whose quantile is not finite.
        uniform = ((draw(stream, counter) >> np.uint64(12)) + 0.5) * 2.0**-52
        normal: NDArray[np.float64] = ndtri(uniform)
        return normal.astype(np.float32).reshape(-1, dim)

    def _negatives(self, cohort: Cohort, round_: int, epoch: int) -> Index:
        """int64 (interactions * num_negatives,): uniform among what each user does not know."""
        known = self._known(cohort)
        user = np.repeat(cohort.user, self.num_negatives)
        sizes = cohort.num_examples * self.num_negatives
        stream, counter = _addresses(self.seed, "negatives", cohort, sizes, round_, epoch)
        item = below(draw(stream, counter), self.num_items)
        redo = np.flatnonzero(known[user, item])
        for attempt in range(1, _ATTEMPTS):
            again = draw(stream[redo], counter[redo] + attempt * _ATTEMPT)
            item[redo] = below(again, self.num_items)
            redo = redo[known[user[redo], item[redo]]]
            if not len(redo):
                return item
        last = draw(stream[redo], counter[redo] + _ATTEMPTS * _ATTEMPT)
        for place, bits in zip(redo, last[:, None], strict=True):
            unknown = np.flatnonzero(~known[user[place]])
            item[place] = unknown[below(bits, len(unknown))].item()
        return item

    def _known(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Bool (num_users, num_items): a byte each, of one chunk of clients, answers at once."""
        known = np.zeros((cohort.num_users, self.num_items), np.bool_)
        known[cohort.known_user, cohort.known_item] = True
        if known.all(axis=1).any():
            raise DataError(
                f"a user has interacted with all {self.num_items} items, so no negative exists: "
                "use a larger catalogue or task=rating"
            )
        return known

    def _shuffled(
        self, samples: Samples, cohort: Cohort, round_: int, epoch: int, *, by_user: bool
    ) -> Samples:
        """Shuffle within each client, by sorting random bits below the client's number."""
        sizes = np.diff(samples.offsets)
        client = owners(samples.offsets)
        bits = draw(*_addresses(self.seed, "shuffle", cohort, sizes, round_, epoch))
        order = np.argsort((client.astype(np.uint64) << np.uint64(44)) | (bits >> np.uint64(20)))
        if by_user and cohort.num_users > len(cohort):
            sizes = np.diff(cohort.user_offsets)
            turn = draw(*_addresses(self.seed, "shuffle-users", cohort, sizes, round_, epoch))
            user = samples.user[order]
            order = order[np.lexsort((user, turn[user], client))]
        context = None if samples.context is None else samples.context[order]
        columns = (samples.user[order], samples.item[order], samples.target[order])
        return Samples(samples.offsets, *columns, context)


def _addresses(
    seed: Seed, role: str, cohort: Cohort, sizes: Index, round_: int, epoch: int
) -> tuple[Streams, Index]:
    """Stream and counter of each draw of a local epoch, `sizes` draws per client, for `draw`."""
    stream = streams(seed, role, round_, cohort.clients).repeat(sizes)
    counter = np.arange(len(stream)) - np.repeat(starts(sizes)[:-1], sizes) + epoch * _EPOCH
    return stream, counter


def _ratings(cohort: Cohort, place: Index | None) -> Samples:
    if cohort.rating is None:
        raise DataError("task=rating needs ratings, these data are implicit: set task=ranking")
    return Samples(cohort.offsets, cohort.user, cohort.item[:, None], cohort.rating, place)


def _lists(cohort: Cohort, others: Index, times: int, place: Index | None) -> Samples:
    """Each interaction so many times, every time before negatives of its own."""
    liked, user = np.repeat(cohort.item, times), np.repeat(cohort.user, times)
    item = np.concatenate([liked[:, None], others], axis=1)
    context = None if place is None else np.repeat(place, times)
    ones = np.ones(len(user), np.float32)
    return Samples(cohort.offsets * times, user, item, ones, context)


def _labelled(cohort: Cohort, negative: Index, num_negatives: int, place: Index | None) -> Samples:
    """Each client's interactions, then its negatives."""
    width = 1 + num_negatives
    offsets = cohort.offsets * width
    owner = owners(cohort.offsets)
    liked = np.arange(len(owner)) + cohort.offsets[owner] * num_negatives
    other = np.repeat(owner, num_negatives)
    disliked = np.arange(len(other)) + cohort.offsets[1:][other]

    def spread(of_liked: Index, of_disliked: Index) -> Index:
        column = np.empty(offsets[-1], np.int64)
        column[liked], column[disliked] = of_liked, of_disliked
        return column

    user = spread(cohort.user, np.repeat(cohort.user, num_negatives))
    target = np.zeros(len(user), np.float32)
    target[liked] = 1
    context = None if place is None else spread(place, np.repeat(place, num_negatives))
    return Samples(offsets, user, spread(cohort.item, negative)[:, None], target, context)
