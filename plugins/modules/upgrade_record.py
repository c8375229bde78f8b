# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_record
short_description: Record in a plan of upgrades how far one of them is
version_added: 1.0.0
author: The fba.stack authors
description:
  - Changes the fact C(fba_upgrades) that fba.stack.upgrade_plan has made.
options:
  service:
    description: Service that is upgraded.
    type: str
    required: true
  step:
    description: C(begin) starts the clock, C(end) stops it, C(fail) keeps the reason for the end of the run.
    type: str
    choices: [begin, end, fail]
    required: true
  reason:
    description: Why it has failed.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Start the clock
  fba.stack.upgrade_record:
    service: redis
    step: begin
"""

RETURN = r""" # """
