"""Ask a web server inside the container: http_check.py URL STATUS, or http_check.py URL any for any answer at all."""

import sys
import urllib.error
import urllib.request


def status_of(url: str) -> int:
    """Return the status that the URL answers with, redirects not followed. Raises OSError where nothing answers."""

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_arguments: object) -> None:
            return None

    try:
        with urllib.request.build_opener(NoRedirect).open(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    _program, address, expected = sys.argv
    found = status_of(address)
    if expected not in ("any", str(found)):
        sys.exit(f"{address} answers {found}, not {expected}")
