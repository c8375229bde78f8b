"""Wait until a server answers: answers.py URL."""

import sys
import time
import urllib.error
import urllib.request

PATIENCE = 60.0
"""Seconds."""


def answers(url: str) -> bool:
    """Return whether something answers, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


deadline = time.monotonic() + PATIENCE
while not answers(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit(f"{sys.argv[1]} does not answer within {PATIENCE:.0f} s")
    time.sleep(0.2)
