"""Model selection: validation alone chooses the round, test only watches."""

from math import isnan

from fedrec_flower.evaluation import Evaluator
from fedrec_flower.interactions import Part
from fedrec_flower.strategies.plan import Evaluated

_SLOTS = ("evaluated-0", "evaluated-1")


class Selection:
    """Remembers the round that validation prefers, and the one that test would have.

    Args:
        evaluator: names the selecting metric and its direction.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._metric, self._higher = evaluator.select_by, evaluator.higher_is_better
        self._selected: Evaluated | None = None
        self._best_test: Evaluated | None = None

    @property
    def selected(self) -> Evaluated:
        """The round with the best validation metric, the earliest of equals.

        Without a validation part, the last round evaluated: test never selects.
        """
        return _known(self._selected)

    @property
    def best_test(self) -> Evaluated:
        """The round with the best test metric."""
        return _known(self._best_test)

    @property
    def free_slot(self) -> str:
        """Where nodes may keep a snapshot without losing the selected round's."""
        taken = self._selected and self._selected.slot
        return _SLOTS[1] if taken == _SLOTS[0] else _SLOTS[0]

    def see(self, result: Evaluated) -> None:
        """Compare a newly evaluated round."""
        if self._prefers(result, self._selected, Part.VALIDATION):
            self._selected = result
        if self._prefers(result, self._best_test, Part.TEST):
            self._best_test = result

    def _prefers(self, new: Evaluated, old: Evaluated | None, part: Part) -> bool:
        if old is None:
            return True
        ours, theirs = (
            result.metrics[part].get(self._metric, float("nan")) for result in (new, old)
        )
        if isnan(ours) or isnan(theirs):
            return isnan(theirs)
        return ours > theirs if self._higher else ours < theirs


def _known(result: Evaluated | None) -> Evaluated:
    if result is None:
        raise ValueError("no round has been evaluated yet")
    return result
