"""RabbitMQ's management API over HTTP, which lists what AMQP cannot."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from commons_events.errors import AuthorizationError, ConnectionLostError, TransportError

__all__ = ["call", "quoted"]


def quoted(name: str) -> str:
    return quote(name, safe="")


def call(base: str, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    """Call the management API; None for what is not there, and for an empty answer."""
    parts = urlsplit(base)
    login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
    host = parts.hostname or "localhost"
    url = f"{parts.scheme}://{host}:{parts.port or 15672}{parts.path.rstrip('/')}/api/{path}"
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
            "Content-Type": "application/json",
        },
    )
    where = f"RabbitMQ's management API at {host}:{parts.port or 15672}"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            read = response.read()
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode(errors="replace")
        if error.code == 404:
            return None
        if error.code == 401:
            raise AuthorizationError(
                f"{where} does not let this user in: 401 {said}. Check the login, and that it has the tag management."
            ) from None
        raise TransportError(f"{where} refused {method} {path}: {error.code} {said}.") from None
    except OSError as error:
        raise ConnectionLostError(f"{where} does not answer: {error}. Check the management_url.") from error
    return json.loads(read) if read else None
