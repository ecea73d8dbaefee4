"""`Nesting`: which code is in a block, such as a store's transaction, and may wait for itself by waiting for others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from commons_events.errors import CapabilityError

__all__ = ["Nesting", "nested"]


_WRITE = "Write through the transaction that the block was given, or after the block."


@dataclass(eq=False, slots=True)
class _Block:
    of: Nesting
    around: _Block | None
    """The block, of another store, in which this one was entered."""
    open: bool = True


_innermost: ContextVar[_Block | None] = ContextVar("commons_events_block", default=None)


def nested() -> bool:
    """Whether the running code is in any block that is still open."""
    block = _innermost.get()
    while block is not None and not block.open:
        block = block.around
    return block is not None


class Nesting:
    """The blocks of one kind, such as one database's transactions.

    Tasks that are started in a block are in it, too, until it ends: it may be waiting for them, as for those that
    ``asyncio.gather`` starts, and before Python 3.12 ``asyncio.wait_for``.
    """

    @contextmanager
    def block(self) -> Iterator[None]:
        """What runs in the ``with`` block is inside."""
        around = _innermost.get()
        while around is not None and not around.open:  # a task's that has outlived it
            around = around.around
        block = _Block(self, around)
        _innermost.set(block)
        try:
            yield
        finally:
            block.open = False
            if _innermost.get() is block:  # else the block is left in another task than it was entered in
                _innermost.set(around)

    @property
    def inside(self) -> bool:
        """Whether the running code is in a block that is still open."""
        block = _innermost.get()
        while block is not None:
            if block.of is self and block.open:
                return True
            block = block.around
        return False

    def refuse(self, advice: str = _WRITE) -> None:
        """To be called before what would have to wait for the block's end.

        Args:
            advice: what to do.

        Raises:
            CapabilityError: the running code is in the block.
        """
        if self.inside:
            raise CapabilityError(
                "A transaction of this store is open around this call, or around the start of its task, and has to end "
                f"before: this would wait for itself. {advice}"
            )
