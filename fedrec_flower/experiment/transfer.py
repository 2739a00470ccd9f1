"""Starting from what another run has learnt, though its catalogue may be another."""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.data.interactions import Ids

_LOG = logging.getLogger(__name__)

Tensors = dict[str, NDArray[np.float32]]

MODEL = "model.safetensors"
ITEM_IDS = "item_ids"  # in the file's metadata: JSON, the original id of each row of item tables
_PRIVACY = "privacy"  # likewise: what a `SavedModel` says of the guarantee, where there is one
VERSIONS = "versions"  # among parameters of several versions: which one each client was given


@dataclass(frozen=True, slots=True)
class SavedModel:
    """The shared parameters of a completed run.

    Attributes:
        path: the file they come from.
        parameters: by name; of several versions the mean over the clients.
        item_ids: the original id, as text, of each row of the tables with a row per item.
        privacy: the guarantee that covers the parameters: `epsilon`, `delta`, `neighbours` (the
            data sets that it makes alike), `does_not_cover` (what it leaves out, sentences), and
            whether its noise was `seeded`; None without one.
    """

    path: Path
    parameters: Tensors
    item_ids: list[str]
    privacy: Mapping[str, Any] | None

    @classmethod
    def read(cls, source: str) -> "SavedModel":
        """Read what a run has left behind.

        Args:
            source: a run's folder, or a file like its model.safetensors.

        Raises:
            ConfigError: if there is no such file, or it is not one that a run has written.
        """
        path = Path(source).expanduser()
        path = path / MODEL if path.is_dir() else path
        require(
            path.is_file(),
            f"init_from={source} holds no model: name a completed run's folder, or its {MODEL}",
        )
        try:
            with safe_open(path, framework="numpy") as file:
                beside = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except SafetensorError as error:
            raise ConfigError(
                f"init_from={source} cannot be read ({error}): name a run's {MODEL}"
            ) from error
        if (told := beside.get(ITEM_IDS)) is None:
            raise ConfigError(
                f"init_from={source} does not tell which items its rows are of: run it again with "
                "this version"
            )
        item_ids = [str(item) for item in json.loads(told)]
        return cls(path, _one_version(arrays), item_ids, json.loads(beside.get(_PRIVACY, "null")))


def metadata(item_ids: Ids, privacy: Mapping[str, Any]) -> dict[str, str]:
    """What the file of a model tells beside the parameters.

    Args:
        item_ids: see `RunFolder.write_model`.
        privacy: see `RunFolder.write_model`.
    """
    told = {ITEM_IDS: json.dumps(item_ids.tolist())}
    if not isfinite(privacy.get("epsilon", inf)):
        return told
    guarantee = {name: privacy[name] for name in ("epsilon", "delta")}
    more = privacy["privacy"]
    guarantee |= {name: more[name] for name in ("neighbours", "does_not_cover")}
    guarantee["seeded"] = more["noise"].startswith("seeded")
    return told | {_PRIVACY: json.dumps(guarantee)}


def taken_over(
    fresh: Mapping[str, NDArray[np.float32]],
    saved: SavedModel,
    item_ids: Ids,
    tables: Collection[str],
) -> Tensors:
    """Initial parameters that are another run's wherever it has any.

    Args:
        fresh: freshly drawn parameters by name.
        saved: the other run's. Parameters are matched by name.
        item_ids: (num_items,), original ids of the items here; matched as text. The rows of an
            item that the other run did not know stay as they were drawn.
        tables: names of the parameters with a row per item.

    Returns:
        New arrays, shaped and ordered like the fresh ones.

    Raises:
        ConfigError: if no parameter or no item is in common, or shapes differ.
    """
    common = [name for name in fresh if name in saved.parameters]
    require(
        bool(common),
        f"init_from={saved.path} shares no parameter with this run: it has "
        f"{sorted(saved.parameters)}, this one {sorted(fresh)}",
    )
    row_of = {item: row for row, item in enumerate(saved.item_ids)}
    rows = np.array([row_of.get(str(item), -1) for item in item_ids.tolist()], np.int64)
    known, result = np.flatnonzero(rows >= 0), {n: value.copy() for n, value in fresh.items()}
    by_item = [name for name in common if name in tables]
    require(
        len(known) > 0 or not by_item,
        f"init_from={saved.path} knows none of the items here: their ids must be the same",
    )
    for name in common:
        theirs = saved.parameters[name]
        _check_shape(name, saved.path, theirs, result[name], table=name in tables)
        if name in tables:
            result[name][known] = theirs[rows[known]]
        else:
            result[name][...] = theirs
    _LOG.info(
        "started from %s: %d of %d parameters, %d of %d items",
        *(saved.path, len(common), len(fresh), len(known), len(rows)),
    )
    return result


def _check_shape(
    name: str, path: Path, theirs: NDArray[Any], ours: NDArray[Any], *, table: bool
) -> None:
    there, here = (value.shape[table:] for value in (theirs, ours))
    what = f"{name} has rows" if table else f"{name} is"
    require(
        there == here,
        f"{what} of shape {there} in init_from={path} and {here} here: choose the model as there",
    )


def _one_version(arrays: dict[str, NDArray[Any]]) -> Tensors:
    """The parameters, the mean over the clients where they were given several versions."""
    if VERSIONS not in arrays:
        return arrays
    weights = np.bincount(arrays.pop(VERSIONS))
    return {
        name: np.average(value[: len(weights)], axis=0, weights=weights).astype(np.float32)
        for name, value in arrays.items()
    }
