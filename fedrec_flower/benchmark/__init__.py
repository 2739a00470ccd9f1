"""`python -m fedrec_flower.benchmark`: cost of rounds, compared with a plain PyTorch loop.

Every measurement runs in a separate process with one thread, so that first rounds and peak memory
are measured separately.
"""

from fedrec_flower.benchmark.rounds import ENGINES, MODELS, measure

__all__ = ["ENGINES", "MODELS", "measure"]
