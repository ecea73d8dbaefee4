"""What RabbitMQ and pika report, as errors of `commons_events.errors`: mapped here and nowhere else."""

from __future__ import annotations

import re
import ssl

from pika import exceptions as pika

from commons_events.errors import (
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    ConnectionLostError,
    MessageTooLargeError,
    PublishError,
    TransportError,
    UnknownTopicError,
)

__all__ = [
    "ExclusiveQueueError",
    "InvalidHeaderError",
    "NotYetRoutableError",
    "RefusedSettingError",
    "RoutingKeyError",
    "TopologyMismatchError",
    "UnknownExchangeError",
    "UnknownQueueError",
    "UnknownVirtualHostError",
    "UnroutableError",
    "channel_error",
    "connection_error",
    "forbidden_key",
    "name_of_exchange",
]


class UnroutableError(PublishError):
    """RabbitMQ returned a message: no queue is bound to its exchange that takes its routing key, so nobody has it."""


class NotYetRoutableError(UnroutableError):
    """RabbitMQ returned a message soon after it was connected to anew: the queue may not be back yet. Send it again."""

    retriable = True


class RoutingKeyError(PublishError, ValueError):
    """A routing key that AMQP 0-9-1 cannot carry: it is a text of at most 255 bytes."""


class InvalidHeaderError(PublishError, ValueError):
    """Headers that AMQP 0-9-1 cannot carry, or that mean something else to RabbitMQ."""


class UnknownExchangeError(UnknownTopicError):
    """There is no exchange of this name in the virtual host."""


class UnknownQueueError(UnknownTopicError):
    """There is no queue of this name in the virtual host."""


class UnknownVirtualHostError(TransportError, LookupError):
    """There is no virtual host of this name on the server."""


class ExclusiveQueueError(TransportError):
    """Somebody else has a queue, or its only consumer, for himself."""


class RefusedSettingError(TransportError, ConfigurationError):
    """RabbitMQ has no exchange, queue, binding or use of one such as was asked for."""


class TopologyMismatchError(TransportError, ValueError):
    """An exchange, queue or binding is there with other arguments than were asked for; nothing was changed."""


_NEVER = (503, 540)
"""COMMAND_INVALID and NOT_IMPLEMENTED, for which RabbitMQ closes the connection."""
_EXCHANGE = re.compile(r"exchange '(?P<name>.*?)' in vhost")
_TOPIC = re.compile(r"access to topic '(?P<key>.*)' in (topic )?exchange '", re.DOTALL)


def name_of_exchange(text: str) -> str | None:
    """The exchange that RabbitMQ's words are about, or None."""
    found = _EXCHANGE.search(text)
    return found["name"] if found else None


def forbidden_key(text: str) -> str | None:
    """The routing key that RabbitMQ's words refuse; None where they are about all of an exchange."""
    found = _TOPIC.search(text)
    return found["key"] if found else None


def channel_error(error: BaseException, doing: str) -> TransportError:
    """The error for a channel that RabbitMQ closed, with its own words and what to do.

    Args:
        error: pika's.
        doing: what was tried, as the beginning of a sentence.
    """
    if not isinstance(error, pika.ChannelClosedByBroker):
        if isinstance(error, pika.ConnectionClosedByBroker) and error.reply_code in _NEVER:
            return RefusedSettingError(f"{doing}: RabbitMQ says {error.reply_code} {error.reply_text!r}.")
        return ConnectionLostError(f"{doing}: the channel or the connection was lost: {error!r}.")
    code, said = error.reply_code, error.reply_text
    what = f"{doing}: RabbitMQ says {code} {said!r}."
    if code == 404:
        if "down or inaccessible" in said:
            return ConnectionLostError(f"{what} It comes back with its node.")
        if "no queue" in said:
            return UnknownQueueError(f"{what} Declare the queue, or check its name and the virtual host.")
        if "no binding" in said:
            return UnknownTopicError(what)
        return UnknownExchangeError(f"{what} Declare the exchange, or check its name and the virtual host.")
    if code == 403:
        if "exclusive" in said:
            return ExclusiveQueueError(f"{what} Another consumer has it for itself: stop that one, or ask for none.")
        if any(words in said for words in ("reserved prefix", "internal exchange", "default exchange")):
            return RefusedSettingError(what)  # whatever the user's permissions
        return AuthorizationError(f"{what} Give the user the permission (rabbitmqctl set_permissions).")
    if code == 405:
        return ExclusiveQueueError(
            f"{what} The queue is exclusive to another connection: use that one, or a queue that is not exclusive."
        )
    if code == 406:
        if "inequivalent" in said:
            return TopologyMismatchError(
                f"{what} What is there was declared with other arguments, and is not changed: ask for it as it is, or "
                "delete it (its messages go too) and declare it anew; arguments that a policy can set, set by a policy."
            )
        if "larger than" in said:
            return MessageTooLargeError(f"{what} Send less, or raise max_message_size in rabbitmq.conf.")
        return RefusedSettingError(what) if "invalid" in said else TransportError(what)
    return TransportError(what)


def connection_error(error: BaseException, where: str, vhost: str, said: bytes = b"") -> TransportError:
    """The error for a connection that did not come to be, or broke.

    Args:
        error: pika's; the reason may lie in what it wraps.
        where: the address, without a password.
        vhost: the virtual host that was asked for.
        said: what was received and is no frame of AMQP.
    """
    for reason in _reasons(error):
        found = _closed(reason)
        if found is not None:
            code, words = found
            if code == 403:
                return AuthenticationError(
                    f"RabbitMQ at {where} does not accept the login: {code} {words!r}. Check user and password."
                )
            if code == 530 and "not found" in words:
                return UnknownVirtualHostError(
                    f"RabbitMQ at {where} has no virtual host {vhost!r}: {code} {words!r}. It is the URL's path "
                    "(amqp://host/NAME; a slash in it is written %2F); rabbitmqctl add_vhost makes one."
                )
            if code == 530 and "refused" in words:
                return AuthorizationError(
                    f"RabbitMQ at {where} does not let the user into virtual host {vhost!r}: {code} {words!r}. "
                    "Give the user permissions there (rabbitmqctl set_permissions)."
                )
            return ConnectionLostError(f"RabbitMQ at {where} closed the connection: {code} {words!r}.")
        if isinstance(reason, pika.AuthenticationError):
            return AuthenticationError(
                f"RabbitMQ at {where} does not offer the login asked for: {reason.args[0]!s}. See auth_mechanism."
            )
        if isinstance(reason, _ENDED) or (isinstance(reason, pika.IncompatibleProtocolError) and not said):
            return ConnectionLostError(
                f"Whoever listens at {where} ended the connection before it was open: RabbitMQ that is starting, or "
                "what stands before it while it is away. Else check the port, and amqp:// or amqps://."
            )
        if isinstance(reason, ssl.SSLError):
            why = getattr(reason, "verify_message", "") or reason.reason or str(reason)
            return AuthenticationError(
                f"TLS with RabbitMQ at {where} failed: {why}. Check cacertfile, certfile and keyfile, the server's "
                "name (server_name_indication), and that the port takes TLS."
            )
        if isinstance(reason, pika.IncompatibleProtocolError):
            return WrongPortError(
                f"At {where} nobody speaks AMQP 0-9-1 like this. Check the port, and amqp:// or amqps://."
            )
        if isinstance(reason, pika.AMQPHeartbeatTimeout):
            return ConnectionLostError(f"RabbitMQ at {where} sent no heartbeat, so the connection counts as lost.")
    last = list(_reasons(error))[-1]
    return ConnectionLostError(
        f"RabbitMQ at {where} is out of reach: {type(last).__name__}: {last}. Check the address, and that it runs."
    )


class WrongPortError(ConnectionLostError, ConfigurationError):
    """Something else than RabbitMQ listens at the address."""

    retriable = False


_ENDED = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    # Without a word of RabbitMQ, which `_closed` would have found: it says why it refuses a login or a virtual host.
    pika.ProbableAuthenticationError,
    pika.ProbableAccessDeniedError,
)


def _closed(reason: BaseException) -> tuple[int, str] | None:
    """Code and words of RabbitMQ, where it closed the connection; pika wraps some as text alone."""
    if isinstance(reason, pika.ConnectionClosedByBroker):
        return reason.reply_code, reason.reply_text
    if isinstance(reason, (pika.ProbableAuthenticationError, pika.ProbableAccessDeniedError)):
        text = " ".join(map(str, reason.args))
        found = re.search(
            r"""ConnectionClosedByBroker: \((?P<code>\d+)\) (?P<quote>["'])(?P<said>.*)(?P=quote)""", text
        )
        if found:
            return int(found["code"]), found["said"].replace("\\'", "'")
    return None


def _reasons(error: BaseException) -> list[BaseException]:
    """An error, and those that it wraps."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if current in found:
            continue
        found.append(current)
        wrapped = getattr(current, "exception", None)
        more = [wrapped] if isinstance(wrapped, BaseException) else []
        for several in (getattr(current, "exceptions", ()), current.args):
            more += [one for one in several if isinstance(one, BaseException)]
        if current.__cause__ is not None:
            more.append(current.__cause__)
        waiting += more
    return found
