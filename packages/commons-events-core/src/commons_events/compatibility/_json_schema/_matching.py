"""Which members of one union stand for which of another."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["matching"]


def matching(left: int, edges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """A maximum matching of a bipartite graph: as many edges as possible, no two with a common end.

    Each free vertex on the left looks, level by level, for the nearest free one on the right by a path that
    alternates between edges outside and inside the matching (Kőnig's augmenting path).

    Args:
        left: how many vertices the left side has.
        edges: pairs of a left and a right vertex.

    Returns:
        The chosen edges, by their left ends.
    """
    neighbours: list[list[int]] = [[] for _ in range(left)]
    for one, other in edges:
        neighbours[one].append(other)
    partner: dict[int, int] = {}
    """Of a right vertex: its left one."""
    for start in range(left):
        came_from: dict[int, int] = {}
        level, end = [start], None
        while level and end is None:
            following: list[int] = []
            for one in level:
                for other in neighbours[one]:
                    if other in came_from:
                        continue
                    came_from[other] = one
                    if other not in partner:
                        end = other
                        break
                    following.append(partner[other])
                if end is not None:
                    break
            level = following
        chosen = {one: other for other, one in partner.items()}
        while end is not None:  # turn the path round, from its free end back to the start
            one = came_from[end]
            partner[end], end = one, chosen.get(one) if one != start else None
    return sorted((one, other) for other, one in partner.items())
