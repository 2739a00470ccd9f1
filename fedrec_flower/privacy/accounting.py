"""What has been spent, by a maintained accountant: nothing here is computed by hand.

Source: Gopi, Lee and Wutschitz 2021, "Numerical composition of differential privacy" (the PRV
accountant), as implemented by Opacus. It gives an upper bound, above the truth by 0.01 at most.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import inf, isinf

import numpy as np

# One stretch of equal releases: noise multiplier, sampling rate, how many.
Stretch = tuple[float, float, int]
History = tuple[Stretch, ...]


@lru_cache(maxsize=4096)
def epsilon_of(history: History, delta: float) -> float:
    """The epsilon of several subsampled Gaussian releases together; 0 for none.

    Args:
        history: stretches of releases; a rate below 1 means Poisson sampling, 1 that everyone
            takes part, which any sampling may be counted as.
        delta: the probability that may be left out.

    Returns:
        An upper bound, for adding or removing one protected unit; infinity without noise.
    """
    if not history:
        return 0.0
    if min(noise for noise, _, _ in history) <= 0:
        return inf
    with _quiet():
        from opacus.accountants import (  # type: ignore[import-untyped]  # it ships no types
            PRVAccountant,
        )

        accountant = PRVAccountant()
        accountant.history = list(history)
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def noise_multiplier_for(target_epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The least noise multiplier, within 0.01 of epsilon, that keeps a budget.

    Args:
        target_epsilon: the budget; infinity asks for no noise.
        delta: see `epsilon_of`.
        rate: sampling rate of every release.
        steps: how many releases.
    """
    if isinf(target_epsilon) or not steps:
        return 0.0
    with _quiet():
        from opacus.accountants.utils import (  # type: ignore[import-untyped]  # it ships no types
            get_noise_multiplier,
        )

        return float(
            get_noise_multiplier(
                target_epsilon=target_epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant="prv",
            )
        )


def default_delta(num_units: int) -> float:
    """A delta below one in the number of protected units: num_units ** -1.1.

    Source: McMahan et al. 2018, "Learning differentially private recurrent language models".
    """
    return float(max(num_units, 2) ** -1.1)


def joined(history: History, step: Stretch) -> History:
    """A history and the releases after it; equal neighbours become one stretch."""
    if history and history[-1][:2] == step[:2]:
        noise, rate, count = history[-1]
        return (*history[:-1], (noise, rate, count + step[2]))
    return (*history, step)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the accountant says of its own inner workings.

    It takes logarithms of zero at a sampling rate of 1, and sizes its grid by orders of Renyi
    divergence whose range matters to its memory, not to its result.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
