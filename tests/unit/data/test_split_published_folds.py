"""Laws of folds by file: they tile the file, the seed moves validation alone."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Interactions, Part
from fedrec_flower.data.splits.published_folds import FileFolds
from tests.helpers.splitting import interactions


def data(count: int) -> Interactions:
    return interactions([n % 7 for n in range(count)], [n // 7 for n in range(count)], None)


def parts(fold: int, count: int, seed: int = 0, num_folds: int = 5) -> list[int]:
    split = FileFolds(fold, num_folds, 0.1, "honest").split(data(count), seed)
    labels: list[int] = split.part.tolist()
    return labels


@pytest.mark.parametrize("count", [100, 103])
def test_every_interaction_is_tested_in_one_fold_and_folds_are_stretches(count: int) -> None:
    tested = [np.flatnonzero(np.array(parts(fold, count)) == Part.TEST) for fold in range(1, 6)]
    assert_array_equal(np.concatenate(tested), np.arange(count))
    assert all((np.diff(fold) == 1).all() for fold in tested)


def test_fold_k_of_movielens_holds_twenty_thousand_lines_from_its_place() -> None:
    labels = np.array(parts(2, 1000))
    assert_array_equal(np.flatnonzero(labels == Part.TEST), np.arange(200, 400))


def test_validation_is_a_tenth_of_the_whole_and_the_seed_moves_it_alone() -> None:
    one, other = (np.array(parts(3, 200, seed)) for seed in (1, 2))
    assert (one == Part.VALIDATION).sum() == 200 * 0.1
    assert ((one == Part.VALIDATION) != (other == Part.VALIDATION)).any()
    assert_array_equal(one == Part.TEST, other == Part.TEST)


def test_a_fold_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"split\.fold=6 does not exist"):
        FileFolds(6, 5, 0.1, "honest")
    with pytest.raises(ConfigError, match="at least 2: 1"):
        FileFolds(1, 1, 0.1, "honest")


def test_a_file_too_short_for_its_folds_is_refused() -> None:
    with pytest.raises(DataError, match="14 interactions"):
        parts(1, 14)
