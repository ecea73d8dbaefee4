"""`News`: where readers of this process wait that have caught up: for who writes, or for their time to look again."""

from __future__ import annotations

import asyncio

__all__ = ["News"]


class News:
    """Wakes the readers that wait. A notice may be lost, or say too much: who is woken looks at the database."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._position = 0

    def tell(self, position: int = 0) -> None:
        """Wake all that wait.

        Args:
            position: one that is stored for certain; 0 where none is known.
        """
        self._position = max(self._position, position)
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, position: int, seconds: float) -> None:
        """Return once something after ``position`` may be there, at the latest after ``seconds``."""
        if self._position > position:  # told between the reader's look and now
            return
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
