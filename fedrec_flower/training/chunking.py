"""How many clients to train at once: as many as a memory budget holds."""

from collections.abc import Callable, Iterator, Sequence
from math import inf, prod

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.negative_sampling import Sampler

_MEGABYTE = 1_000_000
_COPIES = 6  # of a trained value: before, after, gradient, change, and what autograd keeps
_KEPT = 2  # of an activation: itself, and its gradient
_WORDS_PER_SAMPLE = 10  # drawn, shuffled, looked up: numbers of eight bytes


def cut(
    clients: Sequence[ClientData],
    model: Recommender,
    training: LocalTraining,
    sampler: Sampler,
    *,
    activates: bool,
    enough_mb: float = inf,
) -> Iterator[Sequence[ClientData]]:
    """Cut clients into chunks that fit the budget, largest clients first.

    Args:
        clients: the clients.
        model: gives the sizes of rows and of all else.
        training: gives budget, epochs and batch size.
        sampler: gives the samples of an interaction.
        activates: whether the engine keeps what every sample of a step activates, as autograd does.
        enough_mb: megabytes from which on a larger chunk is no faster, so that none is made.

    Raises:
        ConfigError: if a single client does not fit; names the client and what it needs.
    """
    ordered = sorted(clients, key=lambda data: (-len(data), data.client))
    bytes_needed = _bytes_needed(model, training, sampler, activates=activates)
    budget, chunk, filled = training.memory_budget_mb * _MEGABYTE, list[ClientData](), 0
    limit = min(budget, enough_mb * _MEGABYTE)
    for data in ordered:
        needed = bytes_needed(data)
        if needed > budget:
            raise ConfigError(
                f"client {data.client} needs about {needed / _MEGABYTE:.0f} MB to train, "
                f"training.memory_budget_mb={training.memory_budget_mb} allows less: raise it, or "
                "lower training.batch_size"
            )
        if chunk and filled + needed > limit:
            yield chunk
            chunk, filled = [], 0
        chunk.append(data)
        filled += needed
    if chunk:
        yield chunk


def _bytes_needed(
    model: Recommender, training: LocalTraining, sampler: Sampler, *, activates: bool
) -> Callable[[ClientData], int]:
    """Estimate from above the bytes that a client takes while it trains."""
    known = [*model.named_parameters(), *model.named_buffers()]
    sizes = {name: tuple(value.shape) for name, value in known}
    user_floats = sum(prod(size[1:]) for name, size in sizes.items() if name in model.user_rows)
    item_floats = sum(prod(size[1:]) for name, size in sizes.items() if name in model.item_rows)
    tables = model.user_rows | model.item_rows
    dense = [size for name, size in sizes.items() if name not in tables]
    dense_floats = sum(prod(size) for size in dense)
    # What a sample activates: its rows, and one number for each bias of a hidden layer. Models
    # that read histories have their hidden layers there.
    reader = model if isinstance(model, HistoryRecommender) else None
    widths = 0 if reader else sum(prod(size) for size in dense if len(size) == 1)
    activated = _COPIES * (user_floats + item_floats + widths) if activates else 1

    def read(data: ClientData) -> int:
        if reader is None:
            return 0
        entries = (1 + reader.num_negatives) * len(data) + reader.window * data.num_users
        return _KEPT * reader.floats_per_entry * entries

    def needed(data: ClientData) -> int:
        samples = sampler.per_interaction * len(data)
        touched = min(sampler.num_items, training.local_epochs * sampler.width * samples)
        batch = min(training.batch_size or samples, samples) * sampler.width
        trained = item_floats * touched + user_floats * data.num_users + dense_floats
        lookups = sampler.num_items * (data.num_users + 5)  # known items, touched rows
        drawn = _WORDS_PER_SAMPLE * 8 * training.local_epochs * sampler.width * samples
        return 4 * (_COPIES * trained + activated * batch + read(data)) + lookups + drawn

    return needed
