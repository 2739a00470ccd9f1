"""Initialises a run from the model of another run, whose catalogue may differ."""

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
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Ids

_LOG = logging.getLogger(__name__)


MODEL = "model.safetensors"
ITEM_IDS = "item_ids"  # in the file's metadata: JSON, the original id of each row of item tables
_PRIVACY = "privacy"  # in the metadata: JSON, `SavedModel.privacy`, if there is a guarantee
VERSIONS = "versions"  # array: the version of each client, if there are several versions


@dataclass(frozen=True, slots=True)
class SavedModel:
    """The shared parameters of a completed run.

    Attributes:
        path: the file that was read.
        parameters: by name; the mean over the clients if there are several versions.
        item_ids: the original id, as text, of each row of the tables with a row per item.
        privacy: the guarantee that covers the parameters: `epsilon`, `delta`, `neighbours` (the
            relation of neighbouring data sets), `does_not_cover` (sentences on exceptions), and
            whether its noise was `seeded`; None without a guarantee.
    """

    path: Path
    parameters: Tensors
    item_ids: list[str]
    privacy: Mapping[str, Any] | None

    @classmethod
    def read(cls, source: str) -> "SavedModel":
        """Read the model of a run.

        Args:
            source: a run's folder, or a file like its model.safetensors.

        Raises:
            ConfigError: if there is no such file, or a run has not written it.
        """
        path = Path(source).expanduser()
        path = path / MODEL if path.is_dir() else path
        require(
            path.is_file(),
            f"init_from={source} contains no model: give the folder of a completed run, or its "
            f"{MODEL}",
        )
        try:
            with safe_open(path, framework="numpy") as file:
                metadata_ = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except SafetensorError as error:
            raise ConfigError(
                f"init_from={source} cannot be read ({error}): give the {MODEL} of a run"
            ) from error
        if (ids := metadata_.get(ITEM_IDS)) is None:
            raise ConfigError(
                f"init_from={source} contains no item ids: repeat that run with this version"
            )
        item_ids = [str(item) for item in json.loads(ids)]
        privacy = json.loads(metadata_.get(_PRIVACY, "null"))
        return cls(path, _one_version(arrays), item_ids, privacy)


def metadata(item_ids: Ids, privacy: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of a model file: item ids, and the privacy guarantee if there is one.

    Args:
        item_ids: see `RunFolder.write_model`.
        privacy: see `RunFolder.write_model`.
    """
    content = {ITEM_IDS: json.dumps(item_ids.tolist())}
    if not isfinite(privacy.get("epsilon", inf)):
        return content
    guarantee = {name: privacy[name] for name in ("epsilon", "delta")}
    details = privacy["privacy"]
    guarantee |= {name: details[name] for name in ("neighbours", "does_not_cover")}
    guarantee["seeded"] = details["noise"].startswith("seeded")
    return content | {_PRIVACY: json.dumps(guarantee)}


def transfer_parameters(
    fresh: Mapping[str, NDArray[np.float32]],
    saved: SavedModel,
    item_ids: Ids,
    tables: Collection[str],
) -> Tensors:
    """Replace initial parameters by those of another run where it has them.

    Args:
        fresh: randomly initialised parameters by name.
        saved: the model of the other run. Parameters are matched by name.
        item_ids: (num_items,), original ids of the items of this run; matched as text. The rows of
            items that the other run does not have keep their initial values.
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
    common_items = np.flatnonzero(rows >= 0)
    result = {name: value.copy() for name, value in fresh.items()}
    by_item = [name for name in common if name in tables]
    require(
        len(common_items) > 0 or not by_item,
        f"init_from={saved.path} has no item in common with this run: their ids must be the same",
    )
    for name in common:
        theirs = saved.parameters[name]
        _check_shape(name, saved.path, theirs, result[name], table=name in tables)
        if name in tables:
            result[name][common_items] = theirs[rows[common_items]]
        else:
            result[name][...] = theirs
    _LOG.info(
        "started from %s: %d of %d parameters, %d of %d items",
        *(saved.path, len(common), len(fresh), len(common_items), len(rows)),
    )
    return result


def _check_shape(
    name: str, path: Path, theirs: NDArray[Any], ours: NDArray[Any], *, table: bool
) -> None:
    saved_shape = theirs.shape[table:]
    shape = ours.shape[table:]
    subject = f"{name} has rows" if table else f"{name} is"
    require(
        saved_shape == shape,
        f"{subject} of shape {saved_shape} in init_from={path} and {shape} here: choose the same "
        "model",
    )


def _one_version(arrays: dict[str, NDArray[Any]]) -> Tensors:
    """Return the parameters; of several versions, the mean weighted by their clients."""
    if VERSIONS not in arrays:
        return arrays
    weights = np.bincount(arrays.pop(VERSIONS))
    return {
        name: np.average(value[: len(weights)], axis=0, weights=weights).astype(np.float32)
        for name, value in arrays.items()
    }
