"""The callback that has the processes of tasks do less, in an Ansible that runs a playbook."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import ROOT

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ '' | collector }}"
    - ansible.builtin.debug:
        msg: "{{ '' | loaded }}"
"""
# Filters run in the process of a task
FILTER = """
import gc, sys

PLUGINS = ["fba.stack.plugins.filter.fleet", "fba.stack.plugins.lookup.built_image", "ansible.builtin.plugins.lookup.template"]

def collector(_text):
    return f"thresholds {gc.get_threshold()}, {'some' if gc.get_freeze_count() else 'none'} left out"

def loaded(_text):
    wanted = {"ansible.plugins.connection.ssh", *(f"ansible_collections.{name}" for name in PLUGINS)}
    return f"not loaded: {sorted(wanted - set(sys.modules))}"

class FilterModule:
    def filters(self):
        return {"collector": collector, "loaded": loaded}
"""


def test_the_processes_of_tasks_collect_more_rarely_and_load_nothing(ansible_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins" / "collector.py").write_text(FILTER)
    environment = {**ansible_environment, "ANSIBLE_CALLBACKS_ENABLED": "fba.stack.fork_tuning"}
    command = ["ansible-playbook", "-i", "localhost,", "play.yml"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "thresholds (50000, 20, 100), some left out" in run.stdout
    assert "not loaded: []" in run.stdout


def test_the_checkout_enables_it(ansible_environment: dict[str, str]) -> None:
    environment = {**ansible_environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    command = ["ansible-config", "dump", "--only-changed", "-t", "base"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "['fba.stack.fork_tuning']" in run.stdout
