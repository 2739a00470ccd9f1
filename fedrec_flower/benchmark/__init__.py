"""`python -m fedrec_flower.benchmark`: cost of rounds, evaluations and whole commands.

Measurements run in separate processes with one thread; whole commands run as a user starts them.
"""
