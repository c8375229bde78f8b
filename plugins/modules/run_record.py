#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host keeps of the runs that have changed it: which releases it has had, how its containers were made, and the deploy log."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Write down on a host how a run has ended
version_added: 1.1.0
author: The fba.stack authors
description:
  - Of a run that has reached its end, the plans of the containers, which M(fba.stack.container_files) has laid beside the earlier ones,
    take their place, and the release becomes the current one. Of one that has not, they are thrown away.
  - Adds a line to the deploy log in any case.
options:
  state_dir:
    description: Folder of what the host keeps.
    type: path
    required: true
  log:
    description: The deploy log, a JSON document on each line. It keeps its last 1,000 lines.
    type: path
    required: true
  entries:
    description: What is added to the log.
    type: list
    elements: dict
    required: true
  succeeded:
    description: Whether the run has reached its end.
    type: bool
    required: true
  release:
    description: The release that is current from now on. Its C(image) is looked up for its digest.
    type: dict
  before:
    description: Name of the image that ran before. A host without a record begins it with that one.
    type: str
    default: ""
  keep:
    description: Number of releases that are kept. The current one, and the one before it, always are.
    type: int
    default: 5
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Record the release
  fba.stack.run_record:
    state_dir: /var/lib/fba
    log: /var/log/fba/deploys.jsonl
    succeeded: true
    entries:
      - {verb: release, outcome: done}
    release:
      release: 9be3dbb83132
      image: fba/app:9be3dbb83132
"""

RETURN = r"""
record:
  description: The releases of this host, C(current) and C(releases), the newest first.
  type: dict
  returned: always
unrecorded:
  description: Images of the same repository as the release's that are neither recorded nor used by a container.
  type: list
  elements: str
  returned: always
"""

import json
import os
import tempfile
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils.engine import ask_engine

LINES = 1000
NEXT = ".next"


def read(path):
    """Return the lines of a file, none where there is no such file."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().splitlines()
    except FileNotFoundError:
        return []


def write(path, text, mode):
    """Replace a file by a rename."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def tag(image):
    """Return an image's tag."""
    return image.partition("@")[0].rpartition(":")[2]


def digest(image):
    """Return the digest of an image: the registry's where it has been in one, else the engine's own id; empty where it is not there."""
    about = ask_engine(f"/images/{quote(image, safe='')}/json") or {}
    from_registry = [name.rpartition("@")[2] for name in about.get("RepoDigests") or []]
    return (from_registry or [about.get("Id", "")])[0]


def recorded(record, release, before, keep):
    """Return the record once a release is the current one."""
    releases = list(record.get("releases", []))
    current = record.get("current", "")
    if not releases and before and tag(before) != release["release"]:
        # What came before there was a record is a release too
        current = tag(before)
        releases = [{"release": current, "image": before, "digest": digest(before), "previous": ""}]
    if current == release["release"]:
        return {"current": current, "releases": releases}
    known = next((each for each in releases if each["release"] == release["release"]), None)
    if release.get("rollback") and known:
        return {"current": release["release"], "releases": releases}
    entry = {name: value for name, value in release.items() if name != "rollback"}
    entry.update(digest=digest(release["image"]), previous=current)
    others = [each for each in releases if each["release"] != release["release"]]
    # What the current one goes back to stays, however old it is
    kept = [each for index, each in enumerate(others) if index < keep - 1 or each["release"] == current]
    return {"current": release["release"], "releases": [entry, *kept]}


def unrecorded(record, release):
    """Return the tags of the release's repository that are neither recorded nor of a container."""
    repository = release["image"].partition("@")[0].rpartition(":")[0]
    if not repository:
        return []
    filters = quote(json.dumps({"reference": [repository]}))
    images = ask_engine(f"/images/json?filters={filters}") or []
    containers = ask_engine("/containers/json?all=1") or []
    used = {container["ImageID"] for container in containers}
    wanted = {each["image"] for each in record["releases"]}
    found = {name for image in images if image["Id"] not in used for name in image.get("RepoTags") or []}
    return sorted(name for name in found - wanted if name.rpartition(":")[0] == repository)


def settle_plans(folder, succeeded, check_mode):
    """Let the plans of this run take the place of the earlier ones, or throw them away."""
    if check_mode or not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.endswith(NEXT) and succeeded:
            os.rename(path, path[: -len(NEXT)])
        elif name.endswith(NEXT):
            os.unlink(path)
    containers = ask_engine("/containers/json?all=1")
    if succeeded and containers is not None:
        there = {f"{name.lstrip('/')}.json" for container in containers for name in container["Names"]}
        for name in set(os.listdir(folder)) - there:
            os.unlink(os.path.join(folder, name))


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "required": True},
            "log": {"type": "path", "required": True},
            "entries": {"type": "list", "elements": "dict", "required": True},
            "succeeded": {"type": "bool", "required": True},
            "release": {"type": "dict"},
            "before": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    state_dir, release, succeeded = module.params["state_dir"], module.params["release"], module.params["succeeded"]
    path = os.path.join(state_dir, "releases.json")
    text = "\n".join(read(path))
    try:
        record = json.loads(text) if text else {"current": "", "releases": []}
    except ValueError:
        module.fail_json(msg=f"{path} is no JSON document: move it away, and the record begins anew")
    after = recorded(record, release, module.params["before"], module.params["keep"]) if succeeded and release else record
    changed = after != record
    if not module.check_mode:
        if changed:
            write(path, json.dumps(after, indent=2) + "\n", 0o644)
        lines = read(module.params["log"]) + [json.dumps(entry) for entry in module.params["entries"]]
        write(module.params["log"], "\n".join(lines[-LINES:]) + "\n", 0o640)
    settle_plans(os.path.join(state_dir, "plans"), succeeded, module.check_mode)
    diff = {"before_header": path, "before": text + "\n" if text else "", "after_header": path, "after": json.dumps(after, indent=2) + "\n"}
    module.exit_json(
        # A line in the log, and how containers were made, change nothing that runs
        changed=changed,
        record=after,
        unrecorded=unrecorded(after, release) if changed and release else [],
        diff=diff if changed else {},
    )


if __name__ == "__main__":
    main()
