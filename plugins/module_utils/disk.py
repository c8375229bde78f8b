# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Room on the host's disks."""

from __future__ import annotations

import os


def free_bytes(path: str) -> int:
    """Return the free space for root's use of the file system that `path` is, or will be, on."""
    # On the hosts, with plain os as in the modules
    while not os.path.exists(path):  # noqa: PTH110
        path = os.path.dirname(path)  # noqa: PTH120
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
