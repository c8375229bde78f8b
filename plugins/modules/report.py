# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Print text or a table for people
version_added: 1.0.0
author: The fba.stack authors
description:
  - Prints as it is, without the frame that a task's result has. States such as C(unhealthy) are coloured on a terminal.
options:
  text:
    description: Text to print.
    type: str
  columns:
    description: Headings of a table.
    type: list
    elements: str
  rows:
    description: Rows of the table, each a list of cells.
    type: list
    elements: list
"""

EXAMPLES = r"""
- name: Show the services
  fba.stack.report:
    columns: [SERVICE, HEALTH]
    rows:
      - [postgres, healthy]
"""

RETURN = r""" # """
