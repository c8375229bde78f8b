"""Fill or empty a contender's queue: submit.py APP KIND COUNT RATE; submit.py APP. A rate of 0 is as fast as possible; without a kind it is emptied."""

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
