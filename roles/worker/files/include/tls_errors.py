"""Keep one dead TLS connection from ending the others of its thread.

OpenSSL keeps a queue of errors for each thread. What Python's `ssl` leaves in it after a system error, it takes for the error of the next
read that only has to wait: a connection that is well then fails with the other one's "Broken pipe". All greenlets of a pool share one
thread. After a worker's host was cut off, each connection to Redis that had died meanwhile ended the one to RabbitMQ when it was used
again, with every task that ran. https://github.com/python/cpython/issues/148594

Celery imports this before the worker connects (`--include`), and after gevent has put its own `SSLSocket` in the place of Python's.
"""

import _ssl
import ctypes
import functools
import ssl
from collections.abc import Callable
from typing import Any

# Through the module, so that it is the OpenSSL that `ssl` uses: drivers of databases bring their own. PyDLL keeps the interpreter's lock
# and with it the thread.
clear_errors: Callable[[], Any] = ctypes.PyDLL(getattr(_ssl, "__file__", None)).ERR_clear_error


def clearing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method of a TLS socket such that a failure leaves no error behind for others."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except OSError:
            clear_errors()
            raise

    return call


for name in ("do_handshake", "read", "write", "send", "unwrap"):
    setattr(ssl.SSLSocket, name, clearing(getattr(ssl.SSLSocket, name)))
