#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep the packet filter of a stack: who may reach the ports that its containers publish."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Keep the packet filter of a stack
version_added: 1.0.0
author: The fba.stack authors
description:
  - Lets new connections into the stack's network only from the peers, and from everybody to what a public container publishes.
  - Ports that Docker publishes never reach the chain C(INPUT). Docker leaves C(DOCKER-USER) to the administrator, and what is forwarded to
    a container passes it first. The stack's own chain is called from there, and returns there with what is allowed, so that other rules
    in C(DOCKER-USER) still apply. Nothing else is touched, so nobody is locked out of the host.
  - The rules are kept in the kernel, and in a file in the format of C(iptables-restore), which a service loads before Docker starts.
  - With O(subnet) and O(public), the whole filter is kept. Without them, the peers are exchanged in the filter that O(path) has, and
    where it has none, nothing is done.
  - IPv4 only, because the ports are published on IPv4 addresses.
options:
  name:
    description: Name of the stack, which the chain's name is made from.
    type: str
    required: true
  path:
    description: File that has the rules for the next boot.
    type: path
    required: true
  subnet:
    description: IPv4 network of the stack on this host.
    type: str
  public:
    description: IPv4 addresses in the stack's network whose published TCP ports everybody may reach.
    type: list
    elements: str
  peers:
    description: IPv4 addresses that may reach every published port. Required where O(state=present), though it may be empty.
    type: list
    elements: str
  state:
    description: Whether there is a filter. With V(absent), the chain, what calls it, and the file are removed.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Keep the packet filter
  fba.stack.firewall:
    name: fba
    path: /etc/fba/firewall.rules
    subnet: 172.30.10.0/24
    public: [172.30.10.10]
    peers: [192.0.2.11, 192.0.2.12]

- name: Let a host in that has joined
  fba.stack.firewall:
    name: fba
    path: /etc/fba/firewall.rules
    peers: [192.0.2.11, 192.0.2.12, 192.0.2.13]
  delegate_to: another
"""

RETURN = r"""
rules:
  description: What the file at O(path) has, or an empty string where there is no filter.
  type: str
  returned: always
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils.packet_filter import Iptables, Wanted, chain_name, parse_file, problems, read


def write(path, text):
    """Replace the file by a rename, so that a boot finds the old rules or the new, never a part."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Made with mode 0600
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "subnet": {"type": "str"},
            "public": {"type": "list", "elements": "str"},
            "peers": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_together=[("subnet", "public")],
        required_if=[("state", "present", ["peers"])],
        supports_check_mode=True,
    )
    name, path, subnet, state = (module.params[option] for option in ("name", "path", "subnet", "state"))
    public, peers = module.params["public"] or [], module.params["peers"] or []
    wrong = list(problems(name, subnet, public, peers))
    if wrong:
        module.fail_json(msg="; ".join(wrong))

    if subnet is None and state == "present":
        kept = parse_file(read(path) or "", chain_name(name))
        if kept is None:
            module.exit_json(changed=False, rules="", diff=[])
        subnet, public = kept

    iptables = Iptables(module)
    if state == "present" and not iptables.there and not module.check_mode:
        module.fail_json(msg="There is no iptables on this host: install the package iptables")
    wanted = Wanted(iptables, path, name, subnet, public, peers, state)
    diff = []
    if wanted.lines:
        diff.append({"before_header": "iptables", "before": wanted.before, "after_header": "iptables", "after": wanted.after})
    if wanted.stored != wanted.text:
        diff.append({"before_header": path, "before": wanted.stored or "", "after_header": path, "after": wanted.text or ""})

    if not module.check_mode:
        # The kernel first: what it refuses is not kept for the next boot
        if wanted.lines:
            iptables.apply(wanted.lines)
        if wanted.store and wanted.text is None:
            os.unlink(path)
        elif wanted.store:
            write(path, wanted.text)
    module.exit_json(changed=wanted.differs, rules=wanted.text or "", diff=diff)


if __name__ == "__main__":
    main()
