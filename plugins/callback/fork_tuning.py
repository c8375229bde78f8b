# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have the processes that Ansible forks for its tasks do less."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fork_tuning
type: aggregate
short_description: Have the processes that Ansible forks for its tasks do less
version_added: 1.1.0
author: The fba.stack authors
description:
  - Ansible begins a process for each task and host, as a fork of its own. What that one has not loaded yet, each of them loads for itself.
    This loads filters, tests, lookups and the connection when a playbook begins.
  - Ansible keeps tens of thousands of objects, which its inventory, playbooks and plugins are made of. Python looks through these objects
    again and again for some that nothing needs any more, and finds next to none. This leaves out of it what is there when a playbook
    begins, and has it look far more rarely for the rest.
requirements:
  - enabled in C(callbacks_enabled) of C(ansible.cfg), as C(fba.stack.fork_tuning)
"""

import gc
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader, become_loader, connection_loader, filter_loader, lookup_loader, shell_loader, test_loader

THRESHOLDS = (50_000, 20, 100)
"""New objects until the youngest are looked through, and how often that until the next older are. Python 3.11's are 700, 10 and 10."""
LOOKUPS = ["env", "file", "template", "vars"]
"""Ansible's own, as far as the roles use them."""


def preload() -> None:
    """Load the plugins that most tasks need."""
    for loader in (filter_loader, test_loader):
        list(loader.all())
    # The first of a collection loads all of its files
    filter_loader.get("fba.stack.fleet")
    ours = [f"fba.stack.{path.stem}" for path in (Path(__file__).parents[1] / "lookup").glob("*.py")]
    for name in [f"ansible.builtin.{name}" for name in LOOKUPS] + ours:
        lookup_loader.get(name, class_only=True)
    action_loader.get("ansible.builtin.normal", class_only=True)
    connection_loader.get(constants.DEFAULT_TRANSPORT, class_only=True)
    shell_loader.get("sh", class_only=True)
    become_loader.get(constants.DEFAULT_BECOME_METHOD, class_only=True)


class CallbackModule(CallbackBase):
    """Shows nothing. A callback, because these are what Ansible loads into the process that all others are forks of."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "fba.stack.fork_tuning"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load what the forks need, and keep what was loaded until now from the collector."""
        preload()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
