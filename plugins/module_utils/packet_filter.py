# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The packet filter of a stack: what its rules are, and what of them a host lacks."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

Chains = dict[str, list[str]]
"""Chain to its rules."""

USER_CHAIN = "DOCKER-USER"
# What the kernel takes
CHAIN_LENGTH = 28
FILE_MODE = 0o600
# No rule behind one of these comes to bear
ENDS = ("-j RETURN", "-j ACCEPT")


def chain_name(name: str) -> str:
    """Return the name of a stack's chain: its own for each stack, and never too long."""
    chain = f"FBA-{name}"
    if len(chain) <= CHAIN_LENGTH:
        return chain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    # No stack's own name has a dash, so none is taken for a shortened one
    return f"{chain[: CHAIN_LENGTH - 1 - len(digest)]}-{digest}"


def problems(name: str, subnet: str | None, public: list[str], peers: list[str]) -> Iterator[str]:
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


def in_order(addresses: Iterable[str]) -> list[ipaddress.IPv4Address]:
    """Return each address once, sorted by number."""
    return sorted({ipaddress.IPv4Address(address) for address in addresses})


def rules_of(subnet: str, public: list[str], peers: list[str]) -> list[str]:
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


def jump_of(chain: str, subnet: str) -> str:
    """Return the rule in Docker's chain that calls the stack's, as iptables writes it."""
    return f"-d {subnet} -j {chain}"


def restore_input(lines: Iterable[str]) -> str:
    """Return the text that makes iptables-restore do all of these in one transaction."""
    return "".join(f"{line}\n" for line in ["*filter", *lines, "COMMIT"])


def chain_lines(chain: str, rules: Iterable[str]) -> list[str]:
    """Return the lines that make or replace the stack's chain: iptables-restore empties a chain that it is told the name of."""
    return [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules)]


def file_text(chain: str, subnet: str, rules: Iterable[str]) -> str:
    """Return the content of the rules file: the whole filter, for a kernel that has none yet."""
    return restore_input([*chain_lines(chain, rules), f"-I {USER_CHAIN} 1 {jump_of(chain, subnet)}"])


def parse_file(text: str, chain: str) -> tuple[str, list[str]] | None:
    """Return subnet and public addresses of the filter in a rules file, or None where it has none of this stack."""
    jump = re.search(rf"^-I {USER_CHAIN} 1 -d (\S+) -j {chain}$", text, re.MULTILINE)
    if jump is None or f":{chain} - [0:0]" not in text.splitlines():
        return None
    return jump.group(1), re.findall(rf"^-A {chain} -d (\S+)/32 .*--ctstate DNAT -j RETURN$", text, re.MULTILINE)


def parse_live(text: str) -> Chains:
    """Return chain to rules of what `iptables -S` lists."""
    chains: Chains = {}
    for line in text.splitlines():
        command, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        if command in ("-P", "-N"):
            chains.setdefault(chain, [])
        elif command == "-A":
            chains.setdefault(chain, []).append(rule)
    return chains


def jumps_to(chain: str, rules: Iterable[str]) -> list[str]:
    """Return those of the rules that call a chain."""
    return [rule for rule in rules if f" {rule}".endswith((f" -j {chain}", f" -g {chain}"))]


def present_lines(live: Chains, chain: str, subnet: str, rules: list[str]) -> list[str]:
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


def absent_lines(live: Chains, chain: str) -> list[str]:
    """Return the lines that remove the stack's chain and what calls it; none where there is no such chain."""
    if chain not in live:
        return []
    return [*(f"-D {USER_CHAIN} {rule}" for rule in jumps_to(chain, live.get(USER_CHAIN, []))), f"-F {chain}", f"-X {chain}"]


def shown(chain: str, jumps: Iterable[str], rules: Iterable[str]) -> str:
    """Return the text that a diff of the kernel's rules is made of."""
    return "".join(f"-A {USER_CHAIN} {rule}\n" for rule in jumps) + "".join(f"-A {chain} {rule}\n" for rule in rules)


def read(path: str) -> str | None:
    """Return the content of a file, or None where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def is_right(path: str) -> bool:
    """Return whether only this user may read and write the file."""
    status = Path(path).stat()
    return (stat.S_IMODE(status.st_mode), status.st_uid) == (FILE_MODE, os.geteuid())


class Iptables:
    """The kernel's table, through the commands of the host, whichever of the two implementations they are."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.command = module.get_bin_path("iptables")
        self.restore_command = module.get_bin_path("iptables-restore")

    def run(self, arguments: list[str], data: str | None = None) -> str:
        """Run a command and return its output, or end the module with what the command says."""
        code, output, error = self.module.run_command(arguments, data=data)
        if code:
            self.module.fail_json(msg=f"{Path(arguments[0]).name} refuses: {error.strip() or f'exit code {code}'}", input=data)
        return str(output)

    @property
    def there(self) -> bool:
        """Whether the host has them."""
        return bool(self.command and self.restore_command)

    def live(self) -> Chains:
        """Return what the kernel has: nothing, as far as anybody can see, where the commands are not there."""
        return parse_live(self.run([self.command, "-w", "-S"])) if self.there else {}

    def apply(self, lines: Iterable[str]) -> None:
        """Do all of this or nothing."""
        self.run([self.restore_command, "--noflush", "--wait"], restore_input(lines))


class Wanted:
    """What a host is to have, and by what it differs from what it has.

    `lines` are those for iptables-restore, `text` what the rules file is to have, None for no file, and `store` whether it has something
    else.
    """

    def __init__(self, iptables: Iptables, path: str, name: str, subnet: str, public: list[str], peers: list[str], state: str) -> None:
        self.chain, self.stored = chain_name(name), read(path)
        self.text: str | None = None
        live = iptables.live()
        if state == "present":
            # Whatever the network was written as
            subnet = str(ipaddress.IPv4Network(subnet))
            jumps, rules = [jump_of(self.chain, subnet)], rules_of(subnet, public, peers)
            self.lines, self.text = present_lines(live, self.chain, subnet, rules), file_text(self.chain, subnet, rules)
        else:
            jumps, rules = [], []
            self.lines = absent_lines(live, self.chain)
        self.store = self.stored != self.text or (self.text is not None and not is_right(path))
        self.before = shown(self.chain, jumps_to(self.chain, live.get(USER_CHAIN, [])), live.get(self.chain, []))
        self.after = shown(self.chain, jumps, rules)

    @property
    def differs(self) -> bool:
        """Whether anything is to be changed."""
        return bool(self.lines) or self.store
