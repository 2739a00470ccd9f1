"""The round that is released: the best by validation, or the last; test only watches."""

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


class Selection:
    """Remembers the round that is released, and the one that test would have chosen.

    Args:
        evaluator: names the selecting metric and its direction.
        release: "validation": the round that it prefers; "last": the last one evaluated.

    Attributes:
        waited: evaluations since validation last preferred a round to all before it.
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

        Without a validation part, or where the last is released, the last round evaluated: test
        never selects.
        """
        return _known(self._selected)

    @property
    def best_test(self) -> Evaluated:
        """The round with the best test metric; nothing but its metrics is kept."""
        return _known(self._best_test)

    @property
    def free_slot(self) -> str:
        """Where nodes may keep a snapshot, losing neither the selected round nor a checkpoint."""
        taken = {slot for held in self._held for slot in held}
        if self._selected is not None:
            taken.add(self._selected.slot)
        return next(slot for slot in map("evaluated-{}".format, range(9)) if slot not in taken)

    def see(self, result: Evaluated) -> None:
        """Compare a newly evaluated round."""
        first = self._selected is None
        self.waited += 1
        if self._last or self._prefers(result, self._selected, Part.VALIDATION):
            self._selected = result
            # A round of which nothing is known takes the place of another such, and is no better.
            if first or not isnan(self._value(result, Part.VALIDATION)):
                self.waited = 0
        if self._prefers(result, self._best_test, Part.TEST):
            self._best_test = replace(result, parameters={})

    def hold(self, slot: str) -> tuple[list[str], list[str]]:
        """Keep what a checkpoint refers to, until there are two later ones.

        Args:
            slot: where the snapshot of its own round lies.

        Returns:
            The other slots it refers to, and those of the checkpoint before it.
        """
        beside = sorted({self.selected.slot} - {slot})
        self._held.append([slot, *beside])
        return beside, self._held[0]

    def facts(self) -> dict[str, Any]:
        """All it remembers but the selected parameters, JSON-able."""
        return {
            "selected": self.selected.facts(),
            "best_test": self.best_test.facts(),
            "waited": self.waited,
            "held": list(self._held),
        }

    def restore(self, facts: Mapping[str, Any], parameters: Tensors) -> None:
        """Take up what `facts` gave, and the selected parameters."""
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
        """The metric that selects; NaN where it could not be measured."""
        return result.metrics[part].get(self._metric, float("nan"))


def _known(result: Evaluated | None) -> Evaluated:
    if result is None:
        raise ValueError("no round has been evaluated yet")
    return result
