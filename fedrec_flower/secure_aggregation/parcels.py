"""What members and coordinator tell each other."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """A member's public keys of one session.

    Attributes:
        encryption: for what other members send it.
        masking: for the masks it has in common with others.
    """

    encryption: bytes
    masking: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which shares the coordinator asks a member for.

    Attributes:
        survivors: members whose masked vectors arrived: shares of their self masks' seeds.
        dropouts: members that shared and sent no vector: shares of their masking keys.
    """

    survivors: frozenset[int]
    dropouts: frozenset[int]


@dataclass(frozen=True, slots=True)
class Revealed:
    """The shares that a member reveals.

    Attributes:
        seeds: of survivors' self masks, by member.
        keys: of dropouts' private masking keys, by member.
    """

    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]
