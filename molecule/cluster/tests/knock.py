"""Knock at services as somebody with a certificate, with none, or with another's: knock.py CA CERTIFICATE KEY < JSON

For each of `[protocol, address, port, name]` prints what the service says to whom it lets in, or why not: an outsider's own client, which
shares no line with the stack's.
"""

import json
import socket
import ssl
import sys

AMQP = b"AMQP\x00\x00\x09\x01"
HELLO = {"redis": b"PING\r\n", "rabbitmq": AMQP}
# A request to speak TLS, and the first message of version 3 of the protocol
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
PARAMETERS = b"user\x00fba\x00database\x00fba\x00\x00"
STARTUP = (len(PARAMETERS) + 8).to_bytes(4, "big") + b"\x00\x03\x00\x00" + PARAMETERS


def knock(protocol, address, port, name, context):
    """Return what the service says."""
    with socket.create_connection((address, port), timeout=5) as plain:
        if protocol == "postgres":
            plain.sendall(SSL_REQUEST)
            plain.recv(1)
        with context.wrap_socket(plain, server_hostname=name) as connection:
            hello = HELLO.get(protocol) or f"GET {protocol} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
            connection.sendall(STARTUP if protocol == "postgres" else hello)
            answer = connection.recv(200)
    if not answer:
        return "closed"
    # PostgreSQL says in clear words whom it refuses
    return answer.decode("latin-1").splitlines()[0][:120]


def main():
    """Print a list of answers."""
    ca, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    if certificate != "-":
        context.load_cert_chain(certificate, key)
    answers = []
    for protocol, address, port, name in json.load(sys.stdin):
        try:
            answers.append(knock(protocol, address, port, name, context))
        except OSError as error:
            answers.append(f"refused: {type(error).__name__} {error}")
    print(json.dumps(answers))


main()
