"""What members and coordinator send each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedrec_flower.communication.secure_aggregation.primitives import Masked


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
class Contribution:
    """A member's part of the sum.

    Attributes:
        vector: masked unsigned integers (length,).
        clients: number of clients in the vector.
        tags: by neighbour, an authentication code of `clients` that only the neighbour can check.
    """

    vector: Masked
    clients: int
    tags: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which shares the coordinator asks a member for.

    Attributes:
        survivors: members whose masked vectors arrived: shares of their self masks' seeds.
        dropouts: members that shared and sent no vector: shares of their masking keys.
        clients: number of clients in the vector of each survivor but the member itself.
        tags: the authentication codes of these numbers, made for the member.
    """

    survivors: frozenset[int]
    dropouts: frozenset[int]
    clients: Mapping[int, int] = field(default_factory=dict)
    tags: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revealed:
    """The shares that a member reveals.

    Attributes:
        seeds: of survivors' self masks, by member.
        keys: of dropouts' private masking keys, by member.
    """

    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]
