# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: journal
short_description: Note what happens to a host in this run
version_added: 1.1.0
author: The fba.stack authors
description:
  - Adds to the host's fact C(fba_journal), which lasts as long as the run. C(steps) are what the run does one after the other, with the
    seconds since the epoch at which each began and ended, and why it failed; C(containers) what happened to each container.
  - Runs on the controller and takes no connection.
options:
  step:
    description: Name of the step that begins or ends.
    type: str
  state:
    description: What is to be noted of the step.
    type: str
    choices: [begun, done, failed]
    default: begun
  task:
    description: Name of the task that failed.
    type: str
    default: ""
  message:
    description: What it said. Its last 8,000 characters are kept.
    type: raw
    default: ""
  container:
    description: What happened to a container, as the filter P(fba.stack.container_verdict#filter) has it.
    type: dict
  leaves_as:
    description: The name under which the one that was there before finishes what it does, where it does.
    type: str
    default: ""
  applied:
    description: Whether it has happened, and is not only planned. The fact C(fba_containers) then says what the container is.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Begin
  fba.stack.journal:
    step: workers
"""

RETURN = r"""
ansible_facts:
  description: The host's C(fba_journal), and C(fba_containers) where it has changed.
  type: dict
  returned: always
"""
