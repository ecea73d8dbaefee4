"""pika's connections, on a thread of their own: no slow handler stops heartbeats, confirmations or deliveries.

Everything that belongs to pika is touched in that thread alone. `IO.call` brings a function into it; what it has for
the event loop is gathered and handed over once for many.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pika import exceptions as pika
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from commons_events.errors import AuthenticationError, ConnectionLostError, TransportError
from commons_events.rabbitmq._errors import WrongPortError, connection_error
from commons_events.rabbitmq._reading import FastConnection
from commons_events.rabbitmq._settings import LOGGER, RabbitMQSettings
from commons_events.runtime import Runtime, current_runtime

__all__ = ["IO", "Link", "User", "close_channel"]

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0
_PATIENCE = 30.0
"""Seconds for which a server that was there may refuse before it counts: it does so while it starts."""
_LOOK = 5.0
"""Seconds between looks whether the event loop is still there."""
_LONGEST_OUTAGE = 120.0
"""Seconds after which whoever waits for a connection that was lost hears of it."""


class IO:
    """The thread, and the event loop that it works for. Started on first use."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ioloop = IOLoop()
        self._thread = threading.Thread(target=self._run, name="commons-events-rabbitmq-io", daemon=True)
        self._stopped = False
        self.links: list[Link] = []
        """Which connections there are, closed ones too."""
        self.call(self._look_after_loop)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self.ioloop.start()
            except Exception:  # noqa: BLE001  # one connection's trouble must not end the others
                LOGGER.exception("an error in the thread of RabbitMQ's connections; it goes on")
            else:
                break
        self.ioloop.close()

    def call(self, function: Callable[[], object]) -> None:
        """Let the thread call ``function``, soon; from any thread."""
        if not self._stopped:
            self.ioloop.add_callback_threadsafe(function)  # type: ignore[arg-type]  # what it returns is dropped

    def later(self, seconds: float, function: Callable[[], object]) -> object:
        """Call ``function`` in the thread after a while; called there. Returns what `IOLoop.remove_timeout` takes."""
        return self.ioloop.call_later(seconds, function)  # type: ignore[arg-type]

    def tell(self, function: Callable[..., object], *arguments: object) -> None:
        """Let the event loop call ``function``, soon."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed, and nobody waits
            self.call(self._end_alone)

    async def ask(self, function: Callable[[asyncio.Future[Any]], object]) -> Any:
        """Let the thread call ``function`` with a future, and wait until `answer` or `fail` fills it."""
        future = self.loop.create_future()
        self.call(lambda: self._guarded(function, future))
        return await future

    def _guarded(self, function: Callable[[asyncio.Future[Any]], object], future: asyncio.Future[Any]) -> None:
        try:
            function(future)
        except Exception as error:  # noqa: BLE001  # whoever waits has to hear of it, whatever it is
            self.fail(future, error)

    def answer(self, future: asyncio.Future[Any], result: object = None) -> None:
        """Fill a future of the event loop, from the thread."""
        self.tell(_fill, future, result, None)

    def fail(self, future: asyncio.Future[Any], error: BaseException) -> None:
        """Let a future of the event loop raise, from the thread."""
        self.tell(_fill, future, None, error)

    async def stop(self) -> None:
        """End the thread."""
        if not self._stopped:
            self.call(self.ioloop.stop)
            self._stopped = True
        await asyncio.to_thread(self._thread.join)

    def _look_after_loop(self) -> None:
        if self.loop.is_closed():
            self._end_alone()
        else:
            self.later(_LOOK, self._look_after_loop)

    def _end_alone(self) -> None:
        """The event loop ended and nobody closed us: messages must not go on to come here."""
        if not self._stopped:
            self._stopped = True
            nobody: asyncio.Future[Any] = asyncio.Future(loop=self.loop)
            for link in self.links:
                link.close(nobody)
            self._stop_once_closed()
            warnings.warn(
                "A client of RabbitMQ was not closed before its event loop ended; its connections are closed now, and "
                "what was not acknowledged is delivered again. Use it in async with, or await close().",
                ResourceWarning,
                stacklevel=2,
            )

    def _stop_once_closed(self) -> None:
        """End with the last connection; `Link.close` gives a server that does not answer some seconds."""
        if all(link.closed for link in self.links):
            self.ioloop.stop()
        else:
            self.later(_FIRST_BACKOFF, self._stop_once_closed)


def _fill(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class User(Protocol):
    """Who works on a link; all of it is called in the I/O thread."""

    def on_up(self, connection: FastConnection) -> None:
        """The connection is open, for the first time or anew: nothing of an earlier one is left."""
        ...

    def on_down(self, error: TransportError) -> None:
        """The connection is lost; another one is on its way."""
        ...

    def on_failed(self, error: TransportError) -> None:
        """There is no connection, and none is tried for until somebody asks for it again."""
        ...

    def on_blocked(self, reason: str | None) -> None:
        """RabbitMQ takes no messages for want of memory or disk; None: it does again."""
        ...


class Link:
    """One connection that comes again: over all addresses, with growing pauses. Belongs to the I/O thread.

    Args:
        io: the thread.
        settings: the transport's.
        role: what it is for, shown by the management.
    """

    def __init__(self, io: IO, settings: RabbitMQSettings, role: str) -> None:
        self.io = io
        io.links.append(self)
        self.settings = settings
        self._role = role
        self._users: list[User] = []
        self.connection: FastConnection | None = None
        """The open one, or None."""
        self._attempt: FastConnection | None = None
        self._connecting = False
        self._wanted = False
        self.ended = False
        """Whether it was closed, which is for good."""
        self._was_up = False
        self._closing: list[asyncio.Future[Any]] = []
        self._next_host = 0
        self._tried = 0
        self._backoff = _FIRST_BACKOFF
        self._since = 0.0
        self._runtime: Runtime = current_runtime()
        self._timer: object | None = None

    # --- use ---------------------------------------------------------------------------------------------------------

    def use(self, user: User) -> None:
        """Work on this link from now on; `User.on_up` comes soon, or `User.on_failed`."""
        if user not in self._users:
            self._users.append(user)
        if self.connection is not None:
            user.on_up(self.connection)
        else:
            self.want()

    def leave(self, user: User) -> None:
        """Work on it no more."""
        if user in self._users:
            self._users.remove(user)

    def want(self) -> None:
        """Connect, if that is not under way."""
        if not self._wanted and not self.ended:
            self._wanted = True
            self._since = self._runtime.monotonic()
            self._backoff = _FIRST_BACKOFF
            self._tried = 0
            self._connect()

    @property
    def closed(self) -> bool:
        """Whether nothing is connected, and nothing is on the way to it."""
        connection = self.connection or self._attempt
        return connection is None or connection.is_closed

    def close(self, done: asyncio.Future[Any]) -> None:
        """Disconnect for good."""
        self._wanted, self.ended = False, True
        self._users.clear()
        if self._timer is not None:
            self.io.ioloop.remove_timeout(self._timer)  # type: ignore[arg-type]
            self._timer = None
        connection = self.connection or self._attempt
        if connection is None or connection.is_closed:
            self.io.answer(done)
            return
        self._closing.append(done)
        if not connection.is_closing:
            with suppress(pika.ConnectionWrongStateError):
                connection.close()
        self.io.later(5.0, self._give_up_closing)  # a frozen server never says goodbye

    def _give_up_closing(self) -> None:
        connection = self.connection or self._attempt
        if self._closing and connection is not None:
            self.connection = self._attempt = None
            with suppress(Exception):
                connection._terminate_stream(pika.StreamLostError("closing took too long"))
        self._answer_closing()

    def _answer_closing(self) -> None:
        closing, self._closing = self._closing, []
        for done in closing:
            self.io.answer(done)

    # --- connecting --------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._timer = None
        if not self._wanted or self._connecting or self.connection is not None:
            return
        self._connecting = True
        settings = self.settings
        if settings.credentials is None:
            self._connect_as((settings.user, settings.password))
        else:
            # It may wait for a server, or be a coroutine: neither may hold up this thread.
            threading.Thread(target=self._ask_for_login, name="commons-events-rabbitmq-login", daemon=True).start()

    def _ask_for_login(self) -> None:
        assert self.settings.credentials is not None
        try:
            given: Any = self.settings.credentials()
            if inspect.isawaitable(given):
                given = asyncio.run_coroutine_threadsafe(_awaited(given), self.io.loop).result()
            user, password = given
            login = str(user), str(password)
        except Exception as error:  # noqa: BLE001  # it is the user's function
            said = AuthenticationError(
                f"The credentials function for {self.settings.where} failed: {type(error).__name__}: {error}."
            )
            said.__cause__ = error
            self.io.call(lambda: self._not_connected(said))
        else:
            self.io.call(lambda: self._connect_as(login))

    def _connect_as(self, login: tuple[str, str]) -> None:
        if not self._wanted:
            self._connecting = False
            return
        hosts = self.settings.hosts
        host, port = hosts[self._next_host % len(hosts)]
        self._next_host += 1
        try:
            self._attempt = FastConnection(
                self.settings.parameters(host, port, login, self._role),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_open_error,
                on_close_callback=self._on_close,
                custom_ioloop=self.io.ioloop,
            )
        except Exception as error:  # noqa: BLE001  # pika raises what it likes here, such as for a bad address
            self._not_connected(connection_error(error, f"{host}:{port}", self.settings.vhost))

    def _on_open(self, connection: FastConnection) -> None:
        self._connecting = False
        self._attempt = None
        if not self._wanted:
            connection.close()
            self._attempt = connection
            return
        if self._was_up:
            LOGGER.warning("connected to RabbitMQ again, at %s (%s)", self.settings.where, self._role)
        self._was_up = True
        self.connection = connection
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._backoff = _FIRST_BACKOFF
        self._tried = 0
        for user in list(self._users):
            user.on_up(connection)

    def _on_open_error(self, connection: FastConnection, error: BaseException | str) -> None:
        self._attempt = None
        reason = error if isinstance(error, BaseException) else pika.AMQPConnectionError(error)
        said = connection._frame_buffer
        self._not_connected(connection_error(reason, self.settings.where, self.settings.vhost, said))

    def _not_connected(self, error: TransportError) -> None:
        self._connecting = False
        self._answer_closing()
        if not self._wanted:
            return
        self._tried += 1
        waited = self._runtime.monotonic() - self._since
        if self._was_up:
            if isinstance(error, WrongPortError):  # what stands before RabbitMQ speaks while it is away
                error = ConnectionLostError(str(error))
            over = waited > (_LONGEST_OUTAGE if error.retriable else _PATIENCE)
        else:
            over = not error.retriable or waited > self.settings.connection_timeout
        if over and self._tried >= len(self.settings.hosts):
            self._wanted = False
            LOGGER.warning("no connection to RabbitMQ (%s): %s", self._role, error)
            for user in list(self._users):
                user.on_failed(error)
            return
        LOGGER.debug("RabbitMQ (%s): %s", self._role, error)
        pause = self._backoff * (0.5 + self._runtime.random() / 2)
        if self._tried % len(self.settings.hosts):
            pause = 0.0  # another address first
        else:
            self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF)
        self._timer = self.io.later(pause, self._connect)

    def _on_close(self, connection: FastConnection, error: BaseException) -> None:
        if self._attempt is connection:
            self._attempt = None
        if self.connection is not connection:
            self._answer_closing()
            return
        self.connection = None
        reason = connection_error(error, self.settings.where, self.settings.vhost)
        if self._wanted:
            LOGGER.warning("lost the connection to RabbitMQ (%s), connecting again: %s", self._role, reason)
            self._since = self._runtime.monotonic()
        down = reason if isinstance(reason, ConnectionLostError) else ConnectionLostError(str(reason))
        for user in list(self._users):
            user.on_down(down)
        self._answer_closing()
        if self._wanted:
            self._timer = self.io.later(0.0, self._connect)

    def _on_blocked(self, _: object, frame: Any) -> None:
        reason = frame.method.reason
        LOGGER.warning(
            "RabbitMQ takes no messages (connection.blocked: %s); publishing waits until it does. It is short of "
            "memory or disk: see rabbitmqctl status",
            reason,
        )
        for user in list(self._users):
            user.on_blocked(str(reason))

    def _on_unblocked(self, *_: object) -> None:
        LOGGER.warning("RabbitMQ takes messages again (connection.unblocked)")
        for user in list(self._users):
            user.on_blocked(None)


async def _awaited(given: Any) -> Any:
    return await given


def close_channel(channel: Channel | None) -> None:
    """Close a channel that may be closed already."""
    if channel is not None and channel.is_open:
        with suppress(pika.ChannelWrongStateError, pika.ConnectionWrongStateError):
            channel.close()
