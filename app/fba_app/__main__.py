"""The application's commands: `python -m fba_app init`."""

import argparse
import sys

from sqlalchemy.exc import OperationalError

from fba_app.settings import ConfigurationError, get_settings


def _init() -> None:
    # Not at the top: nothing can be imported that the settings do not allow, and the reason shall be told below.
    from fba_app.users.setup import initialize

    print(*initialize(get_settings()), sep="\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fba_app", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    init = commands.add_parser("init", help="make the built-in roles, and the first user while there is none")
    init.set_defaults(run=_init)
    try:
        parser.parse_args(arguments).run()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    except OperationalError as error:
        print(f"PostgreSQL is unavailable: {error.orig}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
