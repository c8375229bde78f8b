"""When a schedule is due.

The moments depend on the schedule alone, not on who computes them or when: so two beats mean the same tick by the same
moment.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fba_app.settings import get_settings


def next_run(crontab: str | None, every: int | None, after: datetime) -> datetime:
    """Return the first moment after this one, in UTC. Exactly one of `crontab` and `every` is given.

    A crontab's minutes are those of the settings' time zone. When clocks change, it does as cron does: what falls into
    the hour that is left out runs at its end, and what falls into the hour that comes twice runs once; unless the
    minutes or the hours begin with a `*`, which goes by what really passes.
    An interval's moments are the multiples of `every` seconds since 1970: 3600 is at each full hour, whenever the
    schedule was made.

    Raises:
        ValueError: the crontab is wrong, or never comes true.
    """
    if crontab is None:
        assert every is not None  # noqa: S101
        return datetime.fromtimestamp((int(after.timestamp()) // every + 1) * every, UTC)
    try:
        moments = CronSim(crontab, after.astimezone(ZoneInfo(get_settings().timezone)))
    except CronSimError as error:
        raise ValueError(f"{error}".lower()) from None
    # In an hour that comes twice, it begins with moments of the first one, which may be past.
    for moment in moments:
        if (at := moment.astimezone(UTC)) > after:
            return at
    raise ValueError("never comes true")
