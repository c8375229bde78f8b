"""Where the stack's RabbitMQ and Redis are, by the settings of its application: for contenders that are not deployed by the collection.

Each has a virtual host of RabbitMQ and a database of Redis of its own, so that none sees another's queues, and the same TLS as the stack.
"""

import os
import ssl
from urllib.parse import quote

from dotenv import dotenv_values

SETTINGS = dotenv_values(os.environ["FBA_ENV_FILE"])
VHOST = os.environ["BENCH_VHOST"]
REDIS_DATABASE = int(os.environ["BENCH_REDIS_DATABASE"])
CA, CERTIFICATE, KEY = (SETTINGS[name] for name in ("TLS_CA_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE"))

_rabbitmq_password = quote(SETTINGS["RABBITMQ_PASSWORD"], safe="")
_redis_password = quote(SETTINGS["REDIS_PASSWORD"], safe="")
RABBITMQ_HOST = SETTINGS["RABBITMQ_HOST"]
AMQP = f"amqps://{SETTINGS['RABBITMQ_USERNAME']}:{_rabbitmq_password}@{RABBITMQ_HOST}:{SETTINGS['RABBITMQ_PORT']}/{VHOST}"
REDIS = f"rediss://:{_redis_password}@{SETTINGS['REDIS_HOST']}:{SETTINGS['REDIS_PORT']}/{REDIS_DATABASE}"
REDIS_TLS = {"ssl_ca_certs": CA, "ssl_certfile": CERTIFICATE, "ssl_keyfile": KEY}


def tls() -> ssl.SSLContext:
    """Return a client's context with the stack's authority and the container's certificate."""
    context = ssl.create_default_context(cafile=CA)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context
