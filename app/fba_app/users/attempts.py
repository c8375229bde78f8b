"""How often someone may try a password, counted in Redis for the account and for the address."""

from ipaddress import ip_address, ip_network

from fba_app import cache
from fba_app.problems import TooManyRequestsError
from fba_app.settings import get_settings

# Counts before the password is looked at: attempts made at once must not all find the same number. What is refused is
# not counted, so that trying on does not prolong it.
_COUNT = """
for i, key in ipairs(KEYS) do
    if tonumber(redis.call('GET', key) or 0) >= tonumber(ARGV[i + 1]) then
        return math.max(1, redis.call('TTL', key))
    end
end
for _, key in ipairs(KEYS) do
    if redis.call('INCR', key) == 1 then
        redis.call('EXPIRE', key, ARGV[1])
    end
end
return 0
"""

_FORGIVE = """
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('DECR', KEYS[2]) <= 0 then
    redis.call('DEL', KEYS[2])
end
"""


def _source(address: str) -> str:
    """Return whom an address stands for: with IPv6, anyone has a whole network of them."""
    try:
        version = ip_address(address).version
    except ValueError:
        return address
    return address if version == 4 else str(ip_network(f"{address}/64", strict=False))


def _keys(username: str, address: str) -> tuple[str, str]:
    return f"attempts:account:{username}", f"attempts:address:{_source(address)}"


async def count(username: str, address: str) -> None:
    """Count an attempt.

    Raises:
        TooManyRequestsError: there were too many, and this one must not be made.
    """
    settings = get_settings()
    limits = settings.login_attempts_per_account, settings.login_attempts_per_address
    wait = await cache.client().eval(_COUNT, 2, *_keys(username, address), settings.login_window, *limits)
    if wait:
        raise TooManyRequestsError("There were too many failed attempts.", retry_after=wait)


async def forgive(username: str, address: str) -> None:
    """Forget the account's attempts, and the last one of the address: it was right."""
    await cache.client().eval(_FORGIVE, 2, *_keys(username, address))
