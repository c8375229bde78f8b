"""Ask a web server inside the container: http_check.py URL STATUS, or http_check.py URL any for any answer at all.

With https, the container shows its certificate, and wants to see one of the same authority.
"""

import ssl
import sys
import urllib.error
import urllib.request

TLS = "/run/fba/tls"


def own_tls() -> ssl.SSLContext:
    """Return how containers of the stack speak TLS with each other."""
    context = ssl.create_default_context(cafile=f"{TLS}/ca.pem")
    context.load_cert_chain(f"{TLS}/certificate.pem", f"{TLS}/private_key.pem")
    return context


def status_of(url: str) -> int:
    """Return the status that the URL answers with, redirects not followed. Raises OSError where nothing answers."""

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_arguments: object) -> None:
            return None

    handlers = [NoRedirect()] + ([urllib.request.HTTPSHandler(context=own_tls())] if url.startswith("https:") else [])
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    _program, address, expected = sys.argv
    found = status_of(address)
    if expected not in ("any", str(found)):
        sys.exit(f"{address} answers {found}, not {expected}")
