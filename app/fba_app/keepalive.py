"""How soon a host that vanished without a word is noticed. The system would take a quarter of an hour, or hours.

It costs the other side nothing but an answer to an empty packet, so this holds for every connection that lasts.
"""

import socket

IDLE = 10
"""Seconds of silence after which the system asks whether the other side is there."""

INTERVAL = 5
"""Seconds until it asks again."""

COUNT = 3
"""Questions without an answer after which the connection has failed, where there is no `USER_TIMEOUT`."""

USER_TIMEOUT = 10_000
"""Milliseconds without an answer, to a question or to what was sent, after which the connection has failed."""

_BY_NAME = {
    "TCP_KEEPIDLE": IDLE,
    "TCP_KEEPINTVL": INTERVAL,
    "TCP_KEEPCNT": COUNT,
    "TCP_USER_TIMEOUT": USER_TIMEOUT,
}

SOCKET_OPTIONS = {getattr(socket, name): value for name, value in _BY_NAME.items() if hasattr(socket, name)}
"""As `setsockopt` takes them. Not every system on which the tests may run has them all."""

LIBPQ_OPTIONS = {
    "keepalives_idle": IDLE,
    "keepalives_interval": INTERVAL,
    "keepalives_count": COUNT,
    "tcp_user_timeout": USER_TIMEOUT,
}
"""As PostgreSQL's own library names them."""
