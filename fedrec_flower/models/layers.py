"""Layers and markers that declare who owns a parameter and how its initial value is drawn.

A model declares ownership where it creates a layer:

    self.user_embedding = UserEmbedding(num_users, dim, init=Normal(0.1))  # stays on the client
    self.item_embedding = ItemEmbedding(num_items, dim, init=Normal(0.1))  # touched rows are sent
    self.head = Personal(nn.Linear(dim, 1))                                # stays on the client
    self.hidden = nn.Linear(dim, dim)                                      # shared and dense

The markers return their argument, so they add no level to the names of parameters. A parameter
without a declaration is shared and dense: every client sends its update.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.random import standard_normal, unit_uniform
from fedrec_flower.core.types import Float32Array

Init = Callable[[tuple[int, ...], np.random.Generator], Float32Array]
"""Draws the initial value of a parameter, float32 of the given shape."""

_Owned = TypeVar("_Owned", bound=nn.Module | Tensor)

_USER_ROWS: Final = "user_rows"
_ITEM_ROWS: Final = "item_rows"
_PERSONAL: Final = "personal"
_LOCALLY_ADAPTED: Final = "locally_adapted"
_FROZEN: Final = "frozen"
_HISTORY_ONLY: Final = "history_only"

# Attributes of layers and tensors that hold their declarations until `Ownership.of` reads them.
_MARKS_ATTRIBUTE: Final = "fedrec_marks"
_INITS_ATTRIBUTE: Final = "fedrec_inits"


class ElementwiseInit(ABC):
    """An initial distribution of independent values; base class.

    The values of many clients can be drawn at once.
    """

    @abstractmethod
    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        """Draw an array."""

    @abstractmethod
    def from_bits(self, bits: NDArray[np.uint64]) -> Float32Array:
        """Map 64 random bits to one value each; float32 in the shape of `bits`."""


@dataclass(frozen=True, slots=True)
class Constant(ElementwiseInit):
    """The same value everywhere.

    Attributes:
        value: the value.
    """

    value: float

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        """Fill an array without random draws."""
        del rng
        return np.full(shape, self.value, np.float32)

    @override
    def from_bits(self, bits: NDArray[np.uint64]) -> Float32Array:
        return np.full(bits.shape, self.value, np.float32)


class Zeros(Constant):
    """Zero everywhere."""

    def __init__(self) -> None:
        super().__init__(0.0)


@dataclass(frozen=True, slots=True)
class Normal(ElementwiseInit):
    """A normal distribution with mean zero.

    Attributes:
        std: standard deviation.
    """

    std: float

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        """Draw an array."""
        return rng.normal(0.0, self.std, shape).astype(np.float32)

    @override
    def from_bits(self, bits: NDArray[np.uint64]) -> Float32Array:
        return (self.std * standard_normal(bits)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Uniform(ElementwiseInit):
    """A uniform distribution on [-bound, bound).

    Attributes:
        bound: the largest magnitude.
    """

    bound: float

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        """Draw an array."""
        return rng.uniform(-self.bound, self.bound, shape).astype(np.float32)

    @override
    def from_bits(self, bits: NDArray[np.uint64]) -> Float32Array:
        return (self.bound * (2 * unit_uniform(bits) - 1)).astype(np.float32)


class XavierUniform:
    """Uniform weights (out, in) of a dense layer. Source: Glorot and Bengio 2010, eq. 16."""

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        """Draw an array."""
        return self.for_shape(shape)(shape, rng)

    def for_shape(self, shape: tuple[int, ...]) -> Uniform:
        """Return the distribution of each value of an array of this shape."""
        return Uniform(float(np.sqrt(6.0 / sum(shape))))


def elementwise(init: Init, shape: tuple[int, ...] | None) -> ElementwiseInit | None:
    """Return the distribution of each value, or None if arrays are drawn as a whole.

    Args:
        init: the distribution of an array.
        shape: shape of the array; None if arrays of different shapes are drawn.
    """
    if isinstance(init, XavierUniform) and shape is not None:
        return init.for_shape(shape)
    return init if isinstance(init, ElementwiseInit) else None


class _RowTable(nn.Embedding):
    """An embedding with an owner; its values come from `init`, never from PyTorch.

    Args:
        num_rows: number of users or items that are loaded first.
        dim: length of a row.
        init: draws the initial value.
    """

    _mark: str

    def __init__(self, num_rows: int, dim: int, init: Init) -> None:
        super().__init__(num_rows, dim, _weight=torch.zeros(num_rows, dim))
        _add_mark(self, self._mark)
        Initialized(self, init)


class UserEmbedding(_RowTable):
    """One row per user. A user's row stays on the client that holds the user."""

    _mark = _USER_ROWS


class ItemEmbedding(_RowTable):
    """One row per item. A client trains and sends only the rows that it touches."""

    _mark = _ITEM_ROWS


class HistoryEmbedding(ItemEmbedding):
    """One row per item, looked up for the items of a user's history and for no others."""

    def __init__(self, num_rows: int, dim: int, init: Init) -> None:
        super().__init__(num_rows, dim, init)
        _add_mark(self, _HISTORY_ONLY)


def PerUser(tensor: _Owned) -> _Owned:  # noqa: N802  # reads like a layer
    """Mark a parameter or buffer outside a layer as one with a row per user; see `UserEmbedding`.

    Args:
        tensor: (num_users, ...).

    Returns:
        The same tensor.
    """
    return _add_mark(tensor, _USER_ROWS)


def PerItem(tensor: _Owned) -> _Owned:  # noqa: N802  # reads like a layer
    """Mark a parameter or buffer outside a layer as one with a row per item; see `ItemEmbedding`.

    Args:
        tensor: (num_items, ...).

    Returns:
        The same tensor.
    """
    return _add_mark(tensor, _ITEM_ROWS)


def Personal(layer: _Owned) -> _Owned:  # noqa: N802  # reads like a layer
    """Mark a layer or parameter that never leaves the client and has no row per user.

    An `ItemEmbedding` may be personal: each client then has its own table of all items.

    Returns:
        The same object.
    """
    return _add_mark(layer, _PERSONAL)


def Frozen(layer: _Owned) -> _Owned:  # noqa: N802  # reads like a layer
    """Mark a shared layer or parameter that clients do not train: it is received, never sent.

    Returns:
        The same object.
    """
    return _add_mark(layer, _FROZEN)


def LocallyAdapted(layer: _Owned) -> _Owned:  # noqa: N802  # reads like a layer
    """Mark a shared layer or parameter whose value after local training the client stores.

    The client scores with its stored value; it still sends its update.

    Returns:
        The same object.
    """
    return _add_mark(layer, _LOCALLY_ADAPTED)


def Initialized(  # noqa: N802  # reads like a layer
    layer: _Owned, init: Init | None = None, **init_by_name: Init
) -> _Owned:
    """Declare how the initial values of a layer or parameter are drawn.

    Args:
        layer: a layer, or a parameter outside a layer.
        init: for the parameter, or for every parameter of the layer itself.
        init_by_name: for single parameters of a layer (`weight=`, `bias=`); overrides `init`.

    Returns:
        The same object.
    """
    inits = dict(init_by_name)
    if init is not None:
        inits[""] = init
    setattr(layer, _INITS_ATTRIBUTE, inits)
    return layer


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owner and the initial distribution of each parameter of a model.

    Attributes:
        user_rows: names of the parameters and buffers with a row per user.
        item_rows: names of the parameters and buffers with a row per item.
        personal: names of the other parameters that never leave the client.
        locally_adapted: names of the shared parameters whose trained value the client stores.
        frozen: names of the parameters that are never trained.
        history_only: names of the item tables that are looked up for histories alone.
        inits: parameter name -> how its initial value is drawn.
    """

    user_rows: frozenset[str]
    item_rows: frozenset[str]
    personal: frozenset[str]
    locally_adapted: frozenset[str]
    frozen: frozenset[str]
    history_only: frozenset[str]
    inits: Mapping[str, Init]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Read the declarations of a model's layers, parameters and buffers.

        Raises:
            ValueError: if a parameter belongs both to users and to items.
        """
        marks: dict[str, frozenset[str]] = {}
        inits: dict[str, Init] = {}
        for name, layer, tensor, tensor_marks in _walk(model, "", frozenset()):
            if _USER_ROWS in tensor_marks and _ITEM_ROWS in tensor_marks:
                raise ValueError(f"{name} is declared both per user and per item: choose one")
            marks[name] = tensor_marks
            if isinstance(tensor, nn.Parameter):
                inits[name] = _init_of(name, layer, tensor)

        def names(mark: str) -> frozenset[str]:
            return frozenset(name for name, own_marks in marks.items() if mark in own_marks)

        return cls(
            user_rows=names(_USER_ROWS),
            item_rows=names(_ITEM_ROWS),
            personal=names(_PERSONAL),
            locally_adapted=names(_LOCALLY_ADAPTED),
            frozen=names(_FROZEN),
            history_only=names(_HISTORY_ONLY),
            inits=inits,
        )


def _add_mark(layer: _Owned, mark: str) -> _Owned:
    setattr(layer, _MARKS_ATTRIBUTE, _marks(layer) | {mark})
    return layer


def _marks(layer: nn.Module | Tensor) -> frozenset[str]:
    marks: frozenset[str] = getattr(layer, _MARKS_ATTRIBUTE, frozenset())
    return marks


def _walk(
    layer: nn.Module, prefix: str, inherited: frozenset[str]
) -> Iterator[tuple[str, nn.Module, Tensor, frozenset[str]]]:
    """Name, layer, value and marks of each parameter and buffer; a layer's marks are inherited."""
    layer_marks = inherited | _marks(layer)
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    for name, tensor in tensors:
        yield f"{prefix}{name}", layer, tensor, layer_marks | _marks(tensor)
    for name, child in layer.named_children():
        yield from _walk(child, f"{prefix}{name}.", layer_marks)


def _init_of(name: str, layer: nn.Module, parameter: nn.Parameter) -> Init:
    """How a parameter is initialised: as declared, else by the type of its layer."""
    short_name = name.rpartition(".")[2]
    declared: dict[str, Init] = {
        **getattr(layer, _INITS_ATTRIBUTE, {}),
        **getattr(parameter, _INITS_ATTRIBUTE, {}),
    }
    for key in (short_name, ""):
        if key in declared:
            return declared[key]
    if isinstance(layer, nn.Linear):
        return XavierUniform() if short_name == "weight" else Zeros()
    values = parameter.detach().flatten()
    if len(values) == 0 or bool((values == values[0]).all()):
        return Constant(float(values[0]) if len(values) else 0.0)
    return _Undeclared(name)


@dataclass(frozen=True, slots=True)
class _Undeclared:
    """A parameter whose value at construction may depend on PyTorch's global random state."""

    name: str

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        """Refuse.

        Raises:
            ValueError: always.
        """
        del shape, rng
        raise ValueError(
            f"{self.name} has no declared initial distribution, and the values that its layer "
            "starts with are not reproducible: wrap the layer, as in "
            "Initialized(layer, XavierUniform())"
        )
