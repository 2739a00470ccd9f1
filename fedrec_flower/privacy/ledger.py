"""The ledger of a run's privacy cost, written to disk before each release leaves the server.

A killed run resumes from its last checkpoint and trains the rounds after it again. Their noise is
new, so each of them is a further release, and the earlier releases of these rounds count too. The
account on disk therefore replaces that of the checkpoint. Seeded noise repeats: a round that is
trained again with the same clients is the same release, and needs no ledger. Under secure
aggregation clients do not reply to a round again. The sum then has other clients and the same
noise, and the difference of the two sums has no noise: such a run writes a ledger, and it cannot
resume if a ledger exists.
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
"""File name in a run's folder. A new run in the same folder keeps the file."""

Account = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class InitialGuarantee:
    """The guarantee of the model that the run starts from.

    Attributes:
        epsilon: its epsilon.
        delta: its delta.
        does_not_cover: values that it does not cover, one sentence for each kind.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    does_not_cover: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """The file with the account of a run, and its budget.

    Attributes:
        path: the file; None if every release repeats.
        budget: the epsilon that this run's releases may cost; infinity for no limit.
        initial: the guarantee of the initial model. It is added to every epsilon and delta:
            guarantees for the same units add up (basic composition; Dwork and Roth 2014,
            theorem 3.16).
    """

    path: Path | None = None
    budget: float = inf
    initial: InitialGuarantee = InitialGuarantee()

    def read(self) -> Account | None:
        """The last account written; None if there was no release.

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
                f"{self.path} cannot be read ({error}), so the privacy budget that this run has "
                "spent is unknown: restore the file, or start a new run in another folder"
            ) from error

    def resumed(self, checkpoint: Account) -> Account:
        """The account with which a run resumes.

        Args:
            checkpoint: the account in the checkpoint.

        Raises:
            DataError: if the file is missing, so that later releases would not be counted.
        """
        if self.path is None:
            return checkpoint
        if (account := self.read()) is None:
            raise DataError(
                f"{self.path} is missing, so the releases of this run after its last checkpoint "
                "are unknown: restore the file, or start a new run in another folder"
            )
        return account

    def write(self, account: Account) -> None:
        """Write the account, and return after it is synchronised to the disk.

        Raises:
            FedrecError: if the disk is full; the caller must not release the sum then.
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
