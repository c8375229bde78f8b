# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: logs
short_description: Show what containers print
version_added: 1.0.0
author: The fba.stack authors
description:
  - Prints the last lines of each container's output, after the names of the host and the container.
options:
  containers:
    description: Names of containers on the host.
    type: list
    elements: str
    required: true
  lines:
    description: Lines of each container.
    type: int
    default: 50
  follow:
    description: Whether to go on until interrupted.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what the worker prints
  fba.stack.logs:
    containers: [fba_celery_worker]
    follow: true
"""

RETURN = r""" # """
