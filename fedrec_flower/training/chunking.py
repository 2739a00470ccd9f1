"""How many clients to train at once: as many as a memory budget holds."""

from collections.abc import Callable, Iterator, Sequence
from math import inf, prod

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.negative_sampling import Sampler

_BYTES_PER_MEGABYTE = 1_000_000
_COPIES_PER_VALUE = 6  # of a trained value: before, after, gradient, change, autograd's buffers
_COPIES_PER_ACTIVATION = 2  # the activation and its gradient
_INTEGERS_PER_SAMPLE = 10  # of eight bytes: drawn, shuffled, looked up


def chunk_clients(
    clients: Sequence[ClientData],
    model: Recommender,
    training: LocalTraining,
    sampler: Sampler,
    *,
    keeps_activations: bool,
    max_useful_mb: float = inf,
) -> Iterator[Sequence[ClientData]]:
    """Split clients into chunks that fit the memory budget, largest clients first.

    Args:
        clients: the clients.
        model: gives the sizes of table rows and of the other parameters.
        training: gives budget, epochs and batch size.
        sampler: gives the number of samples per interaction.
        keeps_activations: whether the trainer stores the activations of all samples of a step, as
            autograd does.
        max_useful_mb: megabytes above which a larger chunk is not faster; chunks stay below.

    Raises:
        ConfigError: if a single client does not fit; names the client and its memory.
    """
    ordered = sorted(clients, key=lambda data: (-len(data), data.client))
    bytes_needed = _bytes_needed(model, training, sampler, keeps_activations=keeps_activations)
    budget = training.memory_budget_mb * _BYTES_PER_MEGABYTE
    limit = min(budget, max_useful_mb * _BYTES_PER_MEGABYTE)
    chunk = list[ClientData]()
    chunk_bytes = 0
    for data in ordered:
        client_bytes = bytes_needed(data)
        if client_bytes > budget:
            raise ConfigError(
                f"client {data.client} needs about {client_bytes / _BYTES_PER_MEGABYTE:.0f} MB to "
                f"train, training.memory_budget_mb={training.memory_budget_mb} allows less: raise "
                "it, or lower training.batch_size"
            )
        if chunk and chunk_bytes + client_bytes > limit:
            yield chunk
            chunk = []
            chunk_bytes = 0
        chunk.append(data)
        chunk_bytes += client_bytes
    if chunk:
        yield chunk


def _bytes_needed(
    model: Recommender, training: LocalTraining, sampler: Sampler, *, keeps_activations: bool
) -> Callable[[ClientData], int]:
    """An upper estimate, in bytes, of the memory that a client takes while it trains."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    sizes = {name: tuple(value.shape) for name, value in tensors}
    user_floats = sum(prod(size[1:]) for name, size in sizes.items() if name in model.user_rows)
    item_floats = sum(prod(size[1:]) for name, size in sizes.items() if name in model.item_rows)
    tables = model.user_rows | model.item_rows
    dense = [size for name, size in sizes.items() if name not in tables]
    dense_floats = sum(prod(size) for size in dense)
    # A sample's activations: its rows, and one number for each bias of a hidden layer. The hidden
    # layers of models with histories are counted in `history_floats`.
    history_model = model if isinstance(model, HistoryRecommender) else None
    widths = 0 if history_model else sum(prod(size) for size in dense if len(size) == 1)
    floats_per_sample = 1
    if keeps_activations:
        floats_per_sample = _COPIES_PER_VALUE * (user_floats + item_floats + widths)

    def history_floats(data: ClientData) -> int:
        if history_model is None:
            return 0
        sampled = (1 + history_model.num_negatives) * len(data)
        entries = sampled + history_model.window * data.num_users
        return _COPIES_PER_ACTIVATION * history_model.floats_per_entry * entries

    def needed(data: ClientData) -> int:
        samples = sampler.per_interaction * len(data)
        touched = min(sampler.num_items, training.local_epochs * sampler.width * samples)
        batch = samples if training.batch_size is None else min(training.batch_size, samples)
        trained = item_floats * touched + user_floats * data.num_users + dense_floats
        lookups = sampler.num_items * (data.num_users + 5)  # known items, touched rows
        drawn = _INTEGERS_PER_SAMPLE * 8 * training.local_epochs * sampler.width * samples
        floats = _COPIES_PER_VALUE * trained + floats_per_sample * batch * sampler.width
        return 4 * (floats + history_floats(data)) + lookups + drawn

    return needed
