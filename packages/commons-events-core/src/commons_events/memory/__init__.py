"""The in-process broker: a real broker in one process, and the executable reference of `Transport`.

Topics have partitions by key, consumer groups share them, and offsets, redelivery with delay, pausing, seeking,
browsing and transactions work as the contract says. ``memory://name`` is one broker a name and process, for all
its event loops and threads; ``memory://`` is the default one.

What is kept: a message stays until every group of its topic has finished it, and the last ``retain`` finished ones
stay for groups that come later. What a full topic does: publishing waits until there is room.
"""

from commons_events.memory._broker import MemoryBroker, MemoryLimits
from commons_events.memory._transport import MemorySubscription, MemoryTransport

__all__ = ["MemoryBroker", "MemoryLimits", "MemorySubscription", "MemoryTransport"]
