"""Shadow federations: the run's own configuration, trained on other users, for comparison.

The published model of a shadow federation is cached below `shadows/` in the cache folder, by a
digest of all its inputs. A stopped run continues after the last complete shadow federation. Runs
that differ only in their seed share the cache, because shadow federations do not use the run's
seed.

One shadow federation costs as much as training the attacked run in this process; its time is
logged.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from safetensors.numpy import load_file, save_file

from fedrec_flower import __version__
from fedrec_flower.core.files import atomic_write
from fedrec_flower.core.instantiate import class_path
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray, Config
from fedrec_flower.data.prepare import reassign_training_users
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.results import Outcome
from fedrec_flower.threats.base import NoAttack
from fedrec_flower.threats.observation import KnownHistories, ShadowModel

_LOG = logging.getLogger(__name__)

Run = Callable[[Config, Prepared, RunFolder], Outcome]

_HONEST = {"_target_": class_path(NoAttack), "name": "none"}
_TRAINED = ".trained"  # name of the tensor with the users that trained, in the cached file
_IGNORED_KEYS = ("seed", "attack", "output_dir", "resume", "overrides", "federation", "callbacks")
_MAX_SEED = 2**31


@dataclass(frozen=True, slots=True)
class Shadows:
    """Trains shadow federations of a run.

    Attributes:
        config: the run's resolved configuration.
        data: the run's prepared data.
        run: runs a federation with a configuration on prepared data, and writes no tables.
    """

    config: Config
    data: Prepared
    run: Run

    def __call__(self, number: int, claims: KnownHistories, inside: BoolArray) -> ShadowModel:
        """Train a shadow federation, or load it from the cache; see `AttackTarget.shadow`.

        Raises:
            FedrecError: if the cache folder cannot be written.
        """
        path = self._folder(claims) / f"{number}.safetensors"
        if not path.is_file():
            self._train(path, number, claims, inside)
        tensors = load_file(path)
        trained = tensors.pop(_TRAINED)
        return ShadowModel({name: t.astype(np.float64) for name, t in tensors.items()}, trained)

    def _train(self, path: Path, number: int, claims: KnownHistories, inside: BoolArray) -> None:
        """Train a shadow federation and write its shared parameters to a file."""
        began = perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int(generator(number, "shadow-seed").integers(_MAX_SEED))
        config = {**self.config, "seed": seed, "attack": _HONEST, "checkpoint_every": None}
        with TemporaryDirectory(prefix=".run-", dir=path.parent) as scratch:
            data = reassign_training_users(self.data, claims, inside, Path(scratch) / "prepared")
            outcome = self.run(config, data, RunFolder.create(Path(scratch) / "run"))
        asked = np.repeat(outcome.rounds_participated > 0, np.diff(self.data.client_offsets))
        trained = inside & asked & (np.diff(claims.offsets) > 0)
        with atomic_write(path, private=True) as partial:  # private: it reveals which users trained
            save_file({**outcome.selected.parameters, _TRAINED: trained}, partial)
        _LOG.info("shadow federation %d: %.0f s", number + 1, perf_counter() - began)

    def _folder(self, claims: KnownHistories) -> Path:
        """The cache folder of the shadow federations of this configuration and these histories."""
        config = {name: value for name, value in self.config.items() if name not in _IGNORED_KEYS}
        text = json.dumps([__version__, config], sort_keys=True, default=str)
        digest = sha256(text.encode())
        for array in (claims.offsets, claims.item, claims.rating, self.data.client_offsets):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return self.data.path.parent.with_name("shadows") / digest.hexdigest()[:20]
