#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep a container's folder of files exactly as its spec says, in one module call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_files
short_description: Keep the files of one container
version_added: 1.0.0
author: The fba.stack authors
description:
  - Writes every file of a container under O(root), and removes what is there and no longer in the spec.
  - Each file is replaced as a whole by a rename, so a reader sees the old content or the new, never a part.
  - One call for all files of a container, because the number of calls is what a run's time is made of. So this one also tells whether the
    container is there as it is wanted, and needs no other call.
options:
  root:
    description: Folder on the host that belongs to this container alone.
    type: path
    required: true
  owner:
    description: Numeric user and group of the container, which the files belong to.
    type: int
    required: true
  log_dir:
    description: Folder for logs that the container may write to. Made when given; its content is never touched.
    type: path
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path on the host, below O(root).
        type: path
        required: true
      mode:
        description: Permissions, octal digits.
        type: str
        required: true
      owner:
        description: Numeric user and group of this file, where they are not O(owner).
        type: int
      content:
        description: Text that may be shown in a diff.
        type: str
      secret_content:
        description: Text that is kept out of every output.
        type: str
      keep:
        description: Whether a file that is there already keeps its content, whatever it is.
        type: bool
        default: false
  exclusive:
    description: Whether whatever else is below O(root) is removed.
    type: bool
    default: true
  plan:
    description:
      - What else the container is made from. With O(files) it is kept in O(plan_file), so that the container can be made again as it was.
      - It is laid beside the earlier one, under the same name with C(.next) behind it. M(fba.stack.run_record) exchanges the two.
    type: dict
  plan_file:
    description: Where the plan is kept. Readable by root alone, as it holds secrets.
    type: path
  container:
    description: The container whose files these are, where the engine is to be asked for it.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      labels:
        description: Labels that it must have. Others do not matter.
        type: dict
        required: true
      once:
        description: Whether it runs to its end, instead of for ever.
        type: bool
        default: false
  reload:
    description: What has a running container take over files that have changed. Not in check mode.
    type: dict
    suboptions:
      container:
        description: Its name.
        type: str
        required: true
      argv:
        description: Command that is run in it, as its own user. The module fails if this does; the files have been written then.
        type: list
        elements: str
        required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Write the files of the cache
  fba.stack.container_files:
    root: /etc/fba/fba_redis
    owner: 999
    files:
      - path: /etc/fba/fba_redis/dir-etc-redis/redis.conf
        mode: "0444"
        content: |
          appendonly yes

- name: Change one of them
  fba.stack.container_files:
    root: /etc/fba/fba_redis
    owner: 999
    exclusive: false
    files:
      - path: /etc/fba/fba_redis/dir-etc-redis/redis.conf
        mode: "0444"
        content: |
          appendonly no
    reload:
      container: fba_redis
      argv: [sh, /opt/fba/reload]
"""

RETURN = r"""
changed_files:
  description: Paths whose content, owner or mode was changed, or that were removed.
  type: list
  elements: str
  returned: always
container:
  description: What the engine says of O(container), as C(docker inspect) shows it; nothing where there is none.
  type: dict
  returned: when O(container) is given
stands:
  description:
    - Whether O(container) has the labels and runs, or has ended with success if it is one that runs to its end. Then nothing is to be done
      about it.
  type: bool
  returned: when O(container) is given
"""

import json
import os
import stat
import tempfile
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes

from ansible_collections.fba.stack.plugins.module_utils.engine import EngineAway, look_up
from ansible_collections.fba.stack.plugins.module_utils.folder import DIRECTORY_MODE, FILES, WantedFile, is_right_directory, read, stale


def make_directory(path, owner, check_mode):
    """Make a folder with the given owner and return whether that changed anything."""
    if is_right_directory(path, owner):
        return False
    if not check_mode:
        os.makedirs(path, exist_ok=True)
        os.chown(path, owner, owner)
        os.chmod(path, DIRECTORY_MODE)
    return True


def write(path, content, mode, owner):
    """Replace a file by a rename, with its owner and mode set before it has its name."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fchown(handle.fileno(), owner, owner)
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def keep_plan(path, plan):
    """Lay a plan beside the earlier one, unless they are the same."""
    content = to_bytes(json.dumps(plan, sort_keys=True))
    following = path + ".next"
    if content == read(path):
        if os.path.exists(following):
            os.unlink(following)
    elif content != read(following):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write(following, content, 0o600, 0)


def stands(about, labels, once):
    """Return whether a container has these labels among its own, and runs, or has ended with success if it runs once."""
    if about is None or not labels.items() <= (about["Config"]["Labels"] or {}).items():
        return False
    state = about["State"]
    return (state["Status"], state["ExitCode"]) == ("exited", 0) if once else state["Status"] == "running"


def take_over(module, answer, container, argv):
    """Have a container take over what has changed, or fail with what it says."""
    code, said, wrong = module.run_command(["docker", "exec", container, *argv])
    if code:
        module.fail_json(
            msg=f"{container} has not taken over {', '.join(answer['changed_files'])}: {(wrong or said).strip()}", rc=code, **answer
        )


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "owner": {"type": "int", "required": True},
            "log_dir": {"type": "path"},
            "files": FILES,
            "exclusive": {"type": "bool", "default": True},
            "plan": {"type": "dict"},
            "plan_file": {"type": "path"},
            "container": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "labels": {"type": "dict", "required": True},
                    "once": {"type": "bool", "default": False},
                },
            },
            "reload": {
                "type": "dict",
                "options": {
                    "container": {"type": "str", "required": True},
                    "argv": {"type": "list", "elements": "str", "required": True},
                },
            },
        },
        required_together=[("plan", "plan_file")],
        supports_check_mode=True,
    )
    root, owner, check_mode = module.params["root"], module.params["owner"], module.check_mode
    files = {entry["path"]: entry for entry in module.params["files"]}
    for path in files:
        if not os.path.normpath(path).startswith(root + os.sep):
            module.fail_json(msg=f"files: {path} is not below {root}")

    changed = make_directory(root, 0, check_mode)
    if module.params["log_dir"]:
        changed = make_directory(module.params["log_dir"], owner, check_mode) or changed

    changed_files, diff = [], []
    for path in stale(root, files) if module.params["exclusive"] else ():
        changed_files.append(path)
        diff.append({"before_header": path, "before": "present\n", "after_header": path, "after": "absent\n"})
        if not check_mode:
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)

    for path, entry in files.items():
        changed = make_directory(os.path.dirname(path), 0, check_mode) or changed
        file = WantedFile(entry, owner)
        if not file.differs:
            continue
        changed_files.append(path)
        if file.before != file.content:
            # A file that not everyone may read was a secret, whatever it is now
            was_secret = file.before is not None and (file.secret or not os.stat(path).st_mode & stat.S_IROTH)
            diff.append(
                {
                    "before_header": path,
                    "before": "(secret, before)\n" if was_secret else (file.before or b"").decode("utf-8", "replace"),
                    "after_header": path,
                    "after": "(secret)\n" if file.secret else file.content.decode("utf-8", "replace"),
                }
            )
        if not check_mode:
            write(path, file.content, file.mode, file.owner)

    if module.params["plan"] and not check_mode:
        given = [{name: value for name, value in entry.items() if value is not None} for entry in module.params["files"]]
        keep_plan(module.params["plan_file"], {**module.params["plan"], "files": given})

    answer = {"changed": changed or bool(changed_files), "changed_files": changed_files, "diff": diff}
    if container := module.params["container"]:
        try:
            about = look_up(f"/containers/{quote(container['name'])}/json")
        except EngineAway as error:
            if not check_mode:
                # Taken for gone, a container that runs once would run again
                module.fail_json(msg=f"The Docker engine does not say whether there is a container {container['name']}: {error}", **answer)
            about = None
        answer.update(container=about, stands=stands(about, container["labels"], container["once"]))
    if changed_files and module.params["reload"] and not check_mode:
        take_over(module, answer, **module.params["reload"])
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
