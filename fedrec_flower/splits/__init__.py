"""Splits: which interactions are trained on, which choose the model, which judge it."""

from typing import Literal, Protocol

from fedrec_flower.interactions import Interactions, Split

# Which items may become training negatives: those not in train (honest), or those not in the
# whole data (legacy: leaks the held-out item). The split only carries the word to the training.
Negatives = Literal["honest", "legacy"]


class Splitter(Protocol):
    """What every class named by a `conf/split/*.yaml` offers."""

    @property
    def negatives(self) -> Negatives:
        """The pool of training negatives; "legacy" is leaky."""
        ...

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction; the same seed gives the same labels in any file order."""
        ...
