"""ModelSelection of the released round: the best by validation, or the last; never by test."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from typing import Any

from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.federation.results import Evaluated
from fedrec_flower.federation.server.plan import Release


class ModelSelection:
    """Selects the released round, and records the round with the best test metric.

    Args:
        evaluator: names the selecting metric and its direction.
        release: "validation" selects the best validation metric, "last" the last evaluated round.

    Attributes:
        waited: number of evaluations since the best validation metric so far.
    """

    def __init__(self, evaluator: Evaluator, release: Release) -> None:
        self._last = release == "last"
        self._metric, self._higher = evaluator.select_by, evaluator.higher_is_better
        self._selected: Evaluated | None = None
        self._best_test: Evaluated | None = None
        self._held: deque[list[str]] = deque([[], []], 2)  # slots of the last two checkpoints
        self.waited = 0

    @property
    def selected(self) -> Evaluated:
        """The round with the best validation metric, the earliest of equals.

        Without a validation part, or with release="last", it is the last evaluated round. The test
        metric never selects.
        """
        return _known(self._selected)

    @property
    def best_test(self) -> Evaluated:
        """The round with the best test metric, without its parameters."""
        return _known(self._best_test)

    @property
    def free_slot(self) -> str:
        """Name of a snapshot slot that neither the selected round nor a checkpoint uses."""
        taken = {slot for held in self._held for slot in held}
        if self._selected is not None:
            taken.add(self._selected.slot)
        return next(slot for slot in map("evaluated-{}".format, range(9)) if slot not in taken)

    def see(self, result: Evaluated) -> None:
        """Compare a newly evaluated round with the selected one."""
        first = self._selected is None
        self.waited += 1
        if self._last or self._prefers(result, self._selected, Part.VALIDATION):
            self._selected = result
            # A round without a metric replaces another one without, but does not count as better.
            if first or not isnan(self._value(result, Part.VALIDATION)):
                self.waited = 0
        if self._prefers(result, self._best_test, Part.TEST):
            self._best_test = replace(result, parameters={})

    def hold(self, slot: str) -> tuple[list[str], list[str]]:
        """Reserve the slots of a checkpoint until there are two later checkpoints.

        Args:
            slot: the slot with the snapshot of the checkpoint's own round.

        Returns:
            The other slots that the checkpoint needs, and all slots of the checkpoint before it.
        """
        beside = sorted({self.selected.slot} - {slot})
        self._held.append([slot, *beside])
        return beside, self._held[0]

    def facts(self) -> dict[str, Any]:
        """Return the whole state except the selected parameters, JSON-able."""
        return {
            "selected": self.selected.facts(),
            "best_test": self.best_test.facts(),
            "waited": self.waited,
            "held": list(self._held),
        }

    def restore(self, facts: Mapping[str, Any], parameters: Tensors) -> None:
        """Restore the state from `facts` and the selected parameters."""
        self._selected = Evaluated.of(facts["selected"], parameters)
        self._best_test = Evaluated.of(facts["best_test"], {})
        self.waited = facts["waited"]
        self._held.extend(facts["held"])

    def _prefers(self, new: Evaluated, old: Evaluated | None, part: Part) -> bool:
        if old is None:
            return True
        ours, theirs = self._value(new, part), self._value(old, part)
        if isnan(ours) or isnan(theirs):
            return isnan(theirs)
        return ours > theirs if self._higher else ours < theirs

    def _value(self, result: Evaluated, part: Part) -> float:
        """The selecting metric; NaN if it could not be measured."""
        return result.metrics[part].get(self._metric, float("nan"))


def _known(result: Evaluated | None) -> Evaluated:
    if result is None:
        raise ValueError("no round has been evaluated yet")
    return result
