"""The account of a run's privacy, on disk before anything of it leaves the server.

A run that was killed goes on from its last checkpoint and trains the rounds after it once more.
Their noise is fresh, so each of them is a further release, and what was released before counts too.
The account on disk therefore wins over that of a checkpoint. Seeded noise repeats: a round that is
trained again with the same clients is the same release, and needs no ledger. Under secure
aggregation clients do not answer a round again. The sum is then another with the same noise, and
the difference of the two has none: such a run has a ledger, and does not go on where it has one.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import DataError
from fedrec_flower.core.files import atomic_write, explain_os_errors

LEDGER = "privacy_ledger.json"
"""Its name in a run's folder. A run that starts anew in the same folder keeps it."""

Account = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Spent:
    """A guarantee that was used up before the run: that of the model it starts from.

    Attributes:
        epsilon: its epsilon.
        delta: its delta.
        does_not_cover: what it leaves out, a sentence for each kind of value.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    does_not_cover: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where the account of a run is kept, and what it may come to.

    Attributes:
        path: the file; None where every release repeats.
        budget: the epsilon that this run's releases may cost; infinity without a limit.
        before: what was spent before this run. It is added to every figure: epsilons and deltas
            of guarantees for the same units add up (basic composition; Dwork and Roth 2014,
            theorem 3.16).
    """

    path: Path | None = None
    budget: float = inf
    before: Spent = Spent()

    def read(self) -> Account | None:
        """The last account written; None if nothing was released.

        Raises:
            DataError: if the file is damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            text = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: np.array(values, np.float64) for name, values in text.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.path} cannot be read ({error}), so what this run has spent of its privacy "
                "budget is not known: bring the file back, or start a new run in another folder"
            ) from error

    def resumed(self, checkpoint: Account) -> Account:
        """The account to go on with, given that of the checkpoint.

        Raises:
            DataError: if releases after the checkpoint would be lost.
        """
        if self.path is None:
            return checkpoint
        if (account := self.read()) is None:
            raise DataError(
                f"{self.path} is missing, so what this run released after its last checkpoint is "
                "not known: bring the file back, or start a new run in another folder"
            )
        return account

    def write(self, account: Account) -> None:
        """Write the account; it is on the disk, not only on its way, when this returns.

        Raises:
            FedrecError: if the disk is full: nothing may be released then.
        """
        if self.path is None:
            return
        text = json.dumps({name: values.tolist() for name, values in account.items()})
        with (
            atomic_write(self.path, private=True) as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        with explain_os_errors(self.path):
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


NO_LEDGER = Ledger()
