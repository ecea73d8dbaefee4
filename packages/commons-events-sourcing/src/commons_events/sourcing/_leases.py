"""How a group's partitions are shared among its workers: evenly, and moved only where it has to be."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from commons_events.runtime import current_runtime
from commons_events.sourcing._backend import Lease

__all__ = ["plan", "share"]


def plan(
    held: dict[int, str], free: Sequence[int], alive: Sequence[str], owner: str, partitions: int
) -> tuple[list[int], list[int]]:
    """What a worker is to take of the free partitions, and what it is to give back.

    Args:
        held: the partitions with a living owner.
        free: those without.
        alive: all living workers, ``owner`` among them.
        owner: this worker.
        partitions: how many there are.
    """
    own = sorted(partition for partition, worker in held.items() if worker == owner)
    most = -(-partitions // len(alive))  # the even share, rounded up
    larger = partitions % len(alive) or len(alive)  # so many may have it; the others have one less
    others = [sum(worker == name for worker in held.values()) for name in alive if name != owner]
    share = most if sum(count >= most for count in others) < larger else most - 1
    return list(free[: max(share - len(own), 0)]), own[max(share, 0) :]


def share(
    leases: MutableMapping[tuple[str, int], tuple[str, int, float]],
    workers: MutableMapping[tuple[str, str], float],
    group: str,
    partitions: int,
    owner: str,
    seconds: float,
    release: Sequence[int],
) -> list[Lease]:
    """See `Backend.lease`, for one process: ``leases`` has owner, epoch and end by group and partition."""
    now = current_runtime().monotonic()
    for partition in release:
        holder, epoch, _ = leases.get((group, partition), ("", 0, 0.0))
        if holder == owner:
            leases[group, partition] = ("", epoch, 0.0)
    if seconds <= 0:
        workers.pop((group, owner), None)
        return []
    workers[group, owner] = now + seconds
    alive = sorted(name for (of, name), end in workers.items() if of == group and end > now)
    held: dict[int, str] = {}
    free: list[int] = []
    for partition in range(partitions):
        holder, epoch, end = leases.get((group, partition), ("", 0, 0.0))
        if holder and (end > now or holder == owner):
            held[partition] = holder
        else:
            free.append(partition)
    take, give = plan(held, free, alive, owner, partitions)
    for partition in take:
        _, epoch, _ = leases.get((group, partition), ("", 0, 0.0))
        leases[group, partition] = (owner, epoch + 1, now + seconds)
    for partition in give:
        leases[group, partition] = ("", leases[group, partition][1], 0.0)
    mine = []
    for partition in range(partitions):
        holder, epoch, _ = leases.get((group, partition), ("", 0, 0.0))
        if holder == owner:
            leases[group, partition] = (owner, epoch, now + seconds)
            mine.append(Lease(group, partition, owner, epoch))
    return mine
