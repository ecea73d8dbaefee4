"""`TransactionGuard`: what works in a transaction does not end it; that is its block's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from commons_events.errors import TransactionError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["TransactionGuard"]

_ADVICE = (
    "The block commits when it ends, and rolls back when it raises. For a part that may fail use a savepoint: "
    "`with connection.begin_nested():`, which a Session has, too."
)


class TransactionGuard:
    """Watches the transaction that a connection is in now, while programs work on it.

    The connection's ``commit()`` and ``rollback()`` are refused from now on. What ends the transaction by another way
    is found out by `check`.

    Args:
        connection: on which a transaction has begun.
        in_transaction: whether the driver is still in one.
    """

    def __init__(self, connection: Connection, in_transaction: Callable[[], bool]) -> None:
        self._connection = connection
        self._begun = connection.get_transaction()
        self._in_transaction = in_transaction
        vars(connection).update(commit=_refuse, rollback=_refuse)  # of this object alone, which nobody uses again

    def check(self) -> None:
        """To be called before and after what a program does.

        Raises:
            TransactionError: the transaction that was begun is over.
        """
        begun = self._begun
        if (
            begun is None
            or not begun.is_active
            or self._connection.get_transaction() is not begun
            or not self._in_transaction()
        ):
            raise TransactionError(
                "The transaction was ended within its block or handler, by a commit, which what was written before it "
                "has outlived, or by a rollback, which took that back; or the database has broken it off. Nothing more "
                f"is stored by it. {_ADVICE}"
            )

    def commit(self) -> None:
        """End the transaction.

        Raises:
            TransactionError: it is over already.
        """
        self.check()
        assert self._begun is not None
        self._begun.commit()


def _refuse() -> NoReturn:
    raise TransactionError(f"A transaction is not committed or rolled back within its block or handler. {_ADVICE}")
