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

import hashlib
import ipaddress
import os
import re
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

USER_CHAIN = "DOCKER-USER"
# What the kernel takes
CHAIN_LENGTH = 28
FILE_MODE = 0o600
# No rule behind one of these comes to bear
ENDS = ("-j RETURN", "-j ACCEPT")


def chain_name(name):
    """Return the name of a stack's chain: its own for each stack, and never too long."""
    chain = f"FBA-{name}"
    if len(chain) <= CHAIN_LENGTH:
        return chain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    # No stack's own name has a dash, so none is taken for a shortened one
    return f"{chain[: CHAIN_LENGTH - 1 - len(digest)]}-{digest}"


def problems(name, subnet, public, peers):
    """Return what is wrong with the parameters, a sentence each."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        yield f"name is {name!r}: allowed are 1 to 31 lower-case letters, digits and underscores, a letter first"
    if subnet is not None:
        try:
            if ipaddress.IPv4Network(subnet).prefixlen == 0:
                raise ValueError
        except ValueError:
            yield f"subnet is {subnet!r}: allowed is an IPv4 network such as 172.30.10.0/24"
    for option, addresses in (("public", public), ("peers", peers)):
        for address in addresses:
            try:
                ipaddress.IPv4Address(address)
            except ValueError:
                yield f"{option} has {address!r}: allowed are IPv4 addresses"


def in_order(addresses):
    """Return each address once, sorted by number."""
    return sorted({ipaddress.IPv4Address(address) for address in addresses})


def rules_of(subnet, public, peers):
    """Return the rules of the stack's chain as iptables itself writes them, so that they compare with what it lists."""
    return [
        # Answers; after this, everything goes in the direction of its connection
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        f"-s {subnet} -j RETURN",
        # By now Docker has put the container's address in the place of the host's. What comes without that, past a published port and
        # straight to a container's address, is not meant.
        *(f"-d {address}/32 -p tcp -m conntrack --ctstate DNAT -j RETURN" for address in in_order(public)),
        *(f"-s {peer}/32 -j RETURN" for peer in in_order(peers)),
        "-j DROP",
    ]


def jump_of(chain, subnet):
    """Return the rule in Docker's chain that calls the stack's, as iptables writes it."""
    return f"-d {subnet} -j {chain}"


def restore_input(lines):
    """Return the text that makes iptables-restore do all of these in one transaction."""
    return "".join(f"{line}\n" for line in ["*filter", *lines, "COMMIT"])


def chain_lines(chain, rules):
    """Return the lines that make or replace the stack's chain: iptables-restore empties a chain that it is told the name of."""
    return [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules)]


def file_text(chain, subnet, rules):
    """Return the content of the rules file: the whole filter, for a kernel that has none yet."""
    return restore_input([*chain_lines(chain, rules), f"-I {USER_CHAIN} 1 {jump_of(chain, subnet)}"])


def parse_file(text, chain):
    """Return subnet and public addresses of the filter in a rules file, or None where it has none of this stack."""
    jump = re.search(rf"^-I {USER_CHAIN} 1 -d (\S+) -j {chain}$", text, re.MULTILINE)
    if jump is None or f":{chain} - [0:0]" not in text.splitlines():
        return None
    return jump.group(1), re.findall(rf"^-A {chain} -d (\S+)/32 .*--ctstate DNAT -j RETURN$", text, re.MULTILINE)


def parse_live(text):
    """Return chain to rules of what `iptables -S` lists."""
    chains = {}
    for line in text.splitlines():
        command, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        if command in ("-P", "-N"):
            chains.setdefault(chain, [])
        elif command == "-A":
            chains.setdefault(chain, []).append(rule)
    return chains


def jumps_to(chain, rules):
    """Return those of the rules that call a chain."""
    return [rule for rule in rules if f" {rule}".endswith((f" -j {chain}", f" -g {chain}"))]


def present_lines(live, chain, subnet, rules):
    """Return the lines that bring the kernel from what is live to what is wanted; none where it is there."""
    user_rules = live.get(USER_CHAIN, [])
    jump = jump_of(chain, subnet)
    jumps = jumps_to(chain, user_rules)
    is_called = jumps == [jump] and not any(rule in ENDS for rule in user_rules[: user_rules.index(jump)])
    if is_called and live.get(chain) == rules:
        return []
    lines = chain_lines(chain, rules)
    if USER_CHAIN not in live:
        # Docker takes the chain as it is when it starts
        lines.insert(0, f"-N {USER_CHAIN}")
    if not is_called:
        lines += [f"-D {USER_CHAIN} {rule}" for rule in jumps]
        lines.append(f"-I {USER_CHAIN} 1 {jump}")
    return lines


def absent_lines(live, chain):
    """Return the lines that remove the stack's chain and what calls it; none where there is no such chain."""
    if chain not in live:
        return []
    return [*(f"-D {USER_CHAIN} {rule}" for rule in jumps_to(chain, live.get(USER_CHAIN, []))), f"-F {chain}", f"-X {chain}"]


def shown(chain, jumps, rules):
    """Return the text that a diff of the kernel's rules is made of."""
    return "".join(f"-A {USER_CHAIN} {rule}\n" for rule in jumps) + "".join(f"-A {chain} {rule}\n" for rule in rules)


def read(path):
    """Return the content of a file, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def is_right(path):
    """Return whether only this user may read and write the file."""
    status = os.stat(path)
    return (stat.S_IMODE(status.st_mode), status.st_uid) == (FILE_MODE, os.geteuid())


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


class Iptables:
    """The kernel's table, through the commands of the host, whichever of the two implementations they are."""

    def __init__(self, module):
        self.module = module
        self.command = module.get_bin_path("iptables")
        self.restore_command = module.get_bin_path("iptables-restore")

    def run(self, arguments, data=None):
        """Run a command and return its output, or end the module with what the command says."""
        code, output, error = self.module.run_command(arguments, data=data)
        if code:
            self.module.fail_json(msg=f"{os.path.basename(arguments[0])} refuses: {error.strip() or f'exit code {code}'}", input=data)
        return output

    def live(self):
        """Return what the kernel has."""
        if self.command and self.restore_command:
            return parse_live(self.run([self.command, "-w", "-S"]))
        if self.module.check_mode or self.module.params["state"] == "absent":
            return {}
        self.module.fail_json(msg="There is no iptables on this host: install the package iptables")

    def apply(self, lines):
        """Do all of this or nothing."""
        self.run([self.restore_command, "--noflush", "--wait"], restore_input(lines))


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

    chain = chain_name(name)
    stored = read(path)
    if subnet is not None:
        # Whatever the network was written as
        subnet = str(ipaddress.IPv4Network(subnet))
    elif state == "present":
        kept = parse_file(stored or "", chain)
        if kept is None:
            module.exit_json(changed=False, rules="", diff=[])
        subnet, public = kept

    iptables = Iptables(module)
    live = iptables.live()
    if state == "present":
        jumps, rules = [jump_of(chain, subnet)], rules_of(subnet, public, peers)
        lines, wanted = present_lines(live, chain, subnet, rules), file_text(chain, subnet, rules)
    else:
        jumps, rules = [], []
        lines, wanted = absent_lines(live, chain), None
    store = stored != wanted or (wanted is not None and not is_right(path))

    diff = []
    if lines:
        before = shown(chain, jumps_to(chain, live.get(USER_CHAIN, [])), live.get(chain, []))
        diff.append({"before_header": "iptables", "before": before, "after_header": "iptables", "after": shown(chain, jumps, rules)})
    if stored != wanted:
        diff.append({"before_header": path, "before": stored or "", "after_header": path, "after": wanted or ""})

    if not module.check_mode:
        # The kernel first: what it refuses is not kept for the next boot
        if lines:
            iptables.apply(lines)
        if store and wanted is None:
            os.unlink(path)
        elif store:
            write(path, wanted)
    module.exit_json(changed=bool(lines) or store, rules=wanted or "", diff=diff)


if __name__ == "__main__":
    main()
