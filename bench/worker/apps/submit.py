"""Fill a contender's queue, submit.py APP KIND COUNT RATE, as fast as possible for a rate of 0; or empty it, submit.py APP."""

import importlib
import sys


def main() -> None:
    """Do what the arguments say."""
    app, *work = sys.argv[1:]
    contender = importlib.import_module(app)
    if work:
        kind, count, rate = work
        contender.submit(kind, int(count), float(rate))
    else:
        contender.purge()


if __name__ == "__main__":
    main()
