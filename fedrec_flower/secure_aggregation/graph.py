"""Who shares masks with whom."""

from collections.abc import Collection, Mapping
from secrets import SystemRandom

Neighbours = Mapping[int, frozenset[int]]


def neighbourhoods(num_members: int, num_neighbours: int | None) -> Neighbours:
    """A random graph in which every member has as many neighbours.

    Source: Bell et al. 2020, section 3: members in a random order on a circle, each beside the
    `num_neighbours` nearest. The order comes from the operating system's generator: members must
    not be able to foresee it.

    Args:
        num_members: members 0, 1, ...
        num_neighbours: of each, even; None or more than there are: all the others.

    Returns:
        The neighbours of each member.
    """
    members = list(range(num_members))
    if num_neighbours is None or num_neighbours >= num_members - 1:
        return {member: frozenset(members) - {member} for member in members}
    SystemRandom().shuffle(members)
    steps = range(1, num_neighbours // 2 + 1)
    return {
        member: frozenset(
            members[(place + sign * step) % num_members] for step in steps for sign in (1, -1)
        )
        for place, member in enumerate(members)
    }


def well_connected(
    neighbours: Neighbours, present: Collection[int], threshold: int
) -> frozenset[int]:
    """The members that have enough others around them, once those that have not are gone.

    Args:
        neighbours: of every member.
        present: who is still there.
        threshold: how many of a member and its neighbours must be present.
    """
    kept, before = frozenset(present), None
    while kept != before:
        before = kept
        kept = frozenset(m for m in before if len(neighbours[m] & before) + 1 >= threshold)
    return kept


def is_connected(neighbours: Neighbours, present: Collection[int]) -> bool:
    """Whether a path over present members leads from each of them to every other."""
    unseen = set(present)
    ahead = [unseen.pop()] if unseen else []
    while ahead:
        found = neighbours[ahead.pop()] & unseen
        unseen -= found
        ahead.extend(found)
    return not unseen
