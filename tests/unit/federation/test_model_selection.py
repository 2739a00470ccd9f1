"""Only validation selects the round; test is recorded."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.ranking import RankingEvaluation
from fedrec_flower.evaluation.rating import RatingEvaluation
from fedrec_flower.federation.results import Evaluated, Metrics
from fedrec_flower.federation.server.model_selection import ModelSelection

RANKING = RankingEvaluation(["hr@10", "ndcg@10"], 0, 10, 1, None, "ndcg@10", "train")
RATING = RatingEvaluation((1.0, 5.0), 10, 1, None, select_by="rmse")

SCORES = st.floats(0, 1)
ROUNDS = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=8)


def evaluated(round_: int, slot: str, validation: float | None, test: float | None) -> Evaluated:
    """An evaluated round; a part without a value has no metrics."""
    values = {Part.VALIDATION: validation, Part.TEST: test}
    metrics: Metrics = {
        part: {} if value is None else {RANKING.select_by: value, RATING.select_by: value}
        for part, value in values.items()
    }
    return Evaluated(round_, slot, {}, metrics, metrics, num_clients=1, num_users=1)


def watch(
    evaluator: Evaluator, rounds: Sequence[tuple[float | None, float]]
) -> tuple[ModelSelection, list[str]]:
    """Show a selection some rounds; also gives the slot that each round's snapshot took."""
    selection, slots = ModelSelection(evaluator, "validation"), []
    for round_, (validation, test) in enumerate(rounds):
        slots.append(selection.free_slot)
        selection.see(evaluated(round_, slots[-1], validation, test))
    return selection, slots


@given(ROUNDS)
def test_the_best_validation_round_is_selected_and_the_earliest_of_equals(
    rounds: list[tuple[float, float]],
) -> None:
    validation = [score for score, _ in rounds]
    assert watch(RANKING, rounds)[0].selected.round == int(np.argmax(validation))
    assert watch(RATING, rounds)[0].selected.round == int(np.argmin(validation))


@given(ROUNDS, st.lists(SCORES, min_size=8, max_size=8))
def test_the_test_part_never_selects(
    rounds: list[tuple[float, float]], other_tests: list[float]
) -> None:
    changed = [(score, test) for (score, _), test in zip(rounds, other_tests, strict=False)]
    one, other = watch(RANKING, rounds)[0], watch(RANKING, changed)[0]
    assert one.selected.round == other.selected.round


@given(ROUNDS)
def test_the_best_test_round_is_remembered_beside_it(rounds: list[tuple[float, float]]) -> None:
    tests = [test for _, test in rounds]
    assert watch(RANKING, rounds)[0].best_test.round == int(np.argmax(tests))


@given(ROUNDS)
def test_no_snapshot_ever_takes_the_slot_of_the_selected_round(
    rounds: list[tuple[float, float]],
) -> None:
    for seen in range(1, len(rounds)):
        selection, slots = watch(RANKING, rounds[:seen])
        assert selection.free_slot != selection.selected.slot
        assert slots[selection.selected.round] == selection.selected.slot


@given(ROUNDS, st.lists(st.booleans(), min_size=8, max_size=8))
def test_no_snapshot_ever_takes_a_slot_that_one_of_the_last_two_checkpoints_needs(
    rounds: list[tuple[float, float]], is_checkpoint: list[bool]
) -> None:
    selection, needed = ModelSelection(RANKING, "validation"), list[list[str]]()
    for round_, (pair, kept) in enumerate(zip(rounds, is_checkpoint, strict=False)):
        slot = selection.free_slot
        assert slot not in {name for slots in needed[-2:] for name in slots}
        selection.see(evaluated(round_, slot, *pair))
        if kept:
            beside, spared = selection.hold(slot)
            assert set(beside) == {selection.selected.slot} - {slot}
            assert spared == (needed[-1] if needed else [])
            needed.append([slot, *beside])
    assert int(selection.free_slot.rpartition("-")[2]) <= 5  # slots cost disk


@given(ROUNDS, ROUNDS)
def test_a_restored_selection_goes_on_like_the_one_that_was_never_interrupted(
    before: list[tuple[float, float]], after: list[tuple[float, float]]
) -> None:
    whole, _ = watch(RANKING, before)
    whole.hold(whole.selected.slot)
    rest = ModelSelection(RANKING, "validation")
    rest.restore(json.loads(json.dumps(whole.facts())), whole.selected.parameters)
    for round_, pair in enumerate(after, len(before)):
        assert rest.free_slot == whole.free_slot
        for selection in (whole, rest):
            selection.see(evaluated(round_, selection.free_slot, *pair))
        assert rest.facts() == whole.facts()


@given(ROUNDS)
def test_it_counts_the_evaluations_since_validation_last_found_a_better_round(
    rounds: list[tuple[float, float]],
) -> None:
    selection, _ = watch(RANKING, rounds)
    assert selection.waited == len(rounds) - 1 - selection.selected.round


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_without_validation_the_last_round_is_selected(nothing: float | None) -> None:
    rounds = [(nothing, 0.1), (nothing, 0.9), (nothing, 0.2)]
    selection, _ = watch(RANKING, rounds)
    assert selection.selected.round == 2
    assert selection.best_test.round == 1


def test_before_the_first_evaluation_there_is_nothing_to_give() -> None:
    selection = ModelSelection(RANKING, "validation")
    with pytest.raises(ValueError, match="no round has been evaluated"):
        _ = selection.selected
    with pytest.raises(ValueError, match="no round has been evaluated"):
        _ = selection.best_test


def test_a_round_that_could_not_be_measured_never_displaces_one_that_was() -> None:
    nan = float("nan")
    selection, _ = watch(RANKING, [(0.5, 0.0), (nan, nan), (0.1, 0.0)])
    assert selection.selected.round == 0
    assert watch(RANKING, [(nan, nan), (0.1, 0.0)])[0].selected.round == 1


@given(ROUNDS, st.integers(1, 5))
def test_rounds_that_cannot_be_measured_are_waited_through(
    rounds: list[tuple[float, float]], unknown: int
) -> None:
    nan = float("nan")
    before, _ = watch(RANKING, rounds)
    after, _ = watch(RANKING, [*rounds, *[(nan, nan)] * unknown])
    assert after.selected.round == before.selected.round
    assert after.waited == before.waited + unknown
    assert watch(RANKING, [(nan, nan)] * unknown)[0].waited == unknown - 1
