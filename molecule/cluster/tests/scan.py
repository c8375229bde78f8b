"""Tell which TCP ports of some addresses take connections: scan.py FIRST LAST ADDRESS…"""

import asyncio
import json
import sys

AT_ONCE = 500
PATIENCE = 1.0


async def is_open(address, port, gate):
    """Return whether something takes a connection."""
    async with gate:
        try:
            _reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE)
        except OSError:
            return False
        writer.close()
        return True


async def main():
    """Print address to its open ports."""
    first, last, *addresses = sys.argv[1:]
    gate = asyncio.Semaphore(AT_ONCE)
    found = {}
    for address in addresses:
        ports = range(int(first), int(last) + 1)
        answers = await asyncio.gather(*(is_open(address, port, gate) for port in ports))
        found[address] = [port for port, answer in zip(ports, answers, strict=True) if answer]
    print(json.dumps(found))


asyncio.run(main())
