"""`python -m fedrec_flower.benchmark`: what rounds cost, beside a plain loop and at scale.

Every measurement runs in a process of its own, one thread, so that its first round and its peak
memory are its own.
"""

from fedrec_flower.benchmark.rounds import ENGINES, MODELS, measure

__all__ = ["ENGINES", "MODELS", "measure"]
