"""The module that keeps a stack's packet filter, and the script that loads it at boot.

They run against a stand-in for iptables, and, where this machine lets them, against both real ones in a network namespace of their own.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.module_utils import packet_filter
from ansible_collections.fba.stack.plugins.modules import firewall, host_lacks

from conftest import ROOT, ModuleRun

Run = Callable[..., dict[str, Any]]

SCRIPT = ROOT / "roles" / "host" / "files" / "firewall.sh"
CHAIN = "FBA-fba"
SUBNET = "172.30.10.0/24"
JUMP = f"-d {SUBNET} -j {CHAIN}"
RULES = [
    "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
    f"-s {SUBNET} -j RETURN",
    "-d 172.30.10.9/32 -p tcp -m conntrack --ctstate DNAT -j RETURN",
    "-d 172.30.10.10/32 -p tcp -m conntrack --ctstate DNAT -j RETURN",
    "-s 192.0.2.9/32 -j RETURN",
    "-s 192.0.2.11/32 -j RETURN",
    "-j DROP",
]
FILE = f"""\
*filter
:{CHAIN} - [0:0]
-A {CHAIN} {RULES[0]}
-A {CHAIN} {RULES[1]}
-A {CHAIN} {RULES[2]}
-A {CHAIN} {RULES[3]}
-A {CHAIN} {RULES[4]}
-A {CHAIN} {RULES[5]}
-A {CHAIN} {RULES[6]}
-I DOCKER-USER 1 {JUMP}
COMMIT
"""
ADMINISTRATORS = "-s 198.51.100.7/32 -j DROP"

# One program under both names; rules are kept as they are written, for which the tests write them as iptables does
STAND_IN = """\
#!{python} -IS
import json, os, sys

STATE = {state!r}
TARGETS = ("ACCEPT", "DROP", "RETURN")


def refuse(reason):
    sys.exit("iptables: " + reason)


def do(chains, command, chain, *words):
    if words and command == "-I":
        words = words[1:] if words[0] == "1" else words
    rule = " ".join(words)
    if command == "-N":
        if chain in chains or len(chain) > 28:
            refuse("Chain already exists, or its name is too long.")
        chains[chain] = []
        return
    if chain not in chains or (command in ("-A", "-I", "-C") and words[-1] not in (*TARGETS, *chains)):
        refuse("No chain/target/match by that name.")
    rules = chains[chain]
    if command == "-A":
        rules.append(rule)
    elif command == "-I":
        rules.insert(0, rule)
    elif command in ("-C", "-D"):
        if rule not in rules:
            refuse("Bad rule (does a matching rule exist in that chain?).")
        if command == "-D":
            rules.remove(rule)
    elif command == "-F":
        rules.clear()
    elif command == "-X":
        if rules or any(rule.endswith(" " + chain) for others in chains.values() for rule in others):
            refuse("Too many links.")
        del chains[chain]
    else:
        refuse("unknown option " + command)


with open(STATE) as handle:
    chains = json.load(handle)
if os.path.basename(sys.argv[0]) == "iptables-restore":
    assert sorted(sys.argv[1:]) == ["--noflush", "--wait"], sys.argv
    for line in sys.stdin.read().splitlines():
        if line.startswith(":"):
            name = line[1:].split()[0]
            chains.pop(name, None) if name not in chains else chains[name].clear()
            name in chains or do(chains, "-N", name)
        elif line not in ("", "*filter", "COMMIT"):
            do(chains, *line.split())
elif sys.argv[1:3] == ["-w", "-S"]:
    if sys.argv[3:] and sys.argv[3] not in chains:
        refuse("No chain/target/match by that name.")
    for chain in chains:
        print("-P " + chain + " ACCEPT" if chain in ("INPUT", "FORWARD", "OUTPUT") else "-N " + chain)
    for chain, rules in chains.items():
        for rule in rules:
            print("-A", chain, rule)
else:
    assert sys.argv[1] == "-w", sys.argv
    do(chains, *sys.argv[2:])
with open(STATE, "w") as handle:
    json.dump(chains, handle)
"""


class Table:
    """A packet filter that the tests look at and change past the module, as an administrator would."""

    def __init__(self, command: Path) -> None:
        self.command = command

    def do(self, *commands: str) -> None:
        """Run iptables, once for each."""
        for command in commands:
            subprocess.run([self.command, "-w", *command.split()], check=True, capture_output=True)

    def chains(self) -> dict[str, list[str]]:
        """Everything that is there."""
        listed = subprocess.run([self.command, "-w", "-S"], check=True, capture_output=True, text=True).stdout
        return packet_filter.parse_live(listed)


def real(flavour: str) -> Iterator[int]:
    """A process in a network namespace of its own, where this iptables works."""
    commands = [shutil.which(name) for name in ("unshare", "nsenter", f"iptables-{flavour}", f"iptables-{flavour}-restore")]
    if None in commands or os.getuid() != 0:
        pytest.skip(f"needs root, unshare, nsenter and iptables-{flavour}")
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", f"iptables-{flavour} -w -S && exec sleep 600"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            pytest.skip(f"no network namespace here, or no iptables-{flavour} in it")
        yield process.pid
        process.kill()


@pytest.fixture(params=["stand-in", "nft", "legacy"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    """A filter as Docker and an administrator leave it. The commands that module and script find are this one's."""
    folder = tmp_path_factory.mktemp("bin")
    processes = real(request.param) if request.param != "stand-in" else None
    pid = next(processes) if processes else 0
    for name in ("iptables", "iptables-restore"):
        if processes:
            program = shutil.which(name.replace("iptables", f"iptables-{request.param}"))
            content = f'#!/bin/sh\nexec nsenter --net=/proc/{pid}/ns/net {program} "$@"\n'
        else:
            content = STAND_IN.format(python=sys.executable, state=str(folder / "state"))
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    (folder / "state").write_text('{"INPUT": [], "FORWARD": [], "OUTPUT": []}')
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    made = Table(folder / "iptables")
    made.do("-A INPUT -s 198.51.100.8/32 -j DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER")
    made.do(f"-A DOCKER-USER {ADMINISTRATORS}", "-A DOCKER-USER -j RETURN")
    yield made
    if processes:
        next(processes, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The rules file, not there yet."""
    return tmp_path / "fba" / "firewall.rules"


@pytest.fixture
def run(run_module: Callable[..., ModuleRun], path: Path) -> Run:
    """Run the module for the stack fba."""

    def run(check_mode: bool = False, **args: Any) -> dict[str, Any]:
        return run_module(firewall.main, {"name": "fba", "path": str(path), **args}, check_mode=check_mode, diff=True).answer

    return run


@pytest.fixture
def whole() -> dict[str, Any]:
    """The parameters of the whole filter, in another order than that of the rules."""
    return {"subnet": SUBNET, "public": ["172.30.10.10", "172.30.10.9", "172.30.10.10"], "peers": ["192.0.2.11", "192.0.2.9", "192.0.2.11"]}


# Names, rules, files


def test_a_chains_name_is_the_stacks_own_and_short_enough() -> None:
    assert packet_filter.chain_name("fba") == CHAIN
    assert packet_filter.chain_name("a" * 24) == "FBA-" + "a" * 24
    names = ["a" * length for length in range(1, 32)] + ["a" * 30 + "b", "a" * 15 + "_" + "b" * 15]
    chains = [packet_filter.chain_name(name) for name in names]
    assert max(map(len, chains)) == 28
    assert len(set(chains)) == len(names)


def test_rules_do_not_depend_on_the_order_of_what_is_listed() -> None:
    assert (
        packet_filter.rules_of(SUBNET, ["172.30.10.10", "172.30.10.9", "172.30.10.10"], ["192.0.2.11", "192.0.2.9", "192.0.2.11"]) == RULES
    )
    assert packet_filter.rules_of(SUBNET, [], []) == [*RULES[:2], "-j DROP"]


def test_the_file_is_the_whole_filter_and_does_not_name_what_restoring_would_empty() -> None:
    text = packet_filter.file_text(CHAIN, SUBNET, RULES)
    assert text == FILE
    assert ":DOCKER-USER" not in text


def test_a_file_tells_subnet_and_public_addresses() -> None:
    assert packet_filter.parse_file(FILE, CHAIN) == (SUBNET, ["172.30.10.9", "172.30.10.10"])
    assert packet_filter.parse_file(packet_filter.file_text(CHAIN, SUBNET, packet_filter.rules_of(SUBNET, [], [])), CHAIN) == (SUBNET, [])


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("", CHAIN),
        (FILE, "FBA-fb"),
        (FILE, "FBA-fba_two"),
        (FILE.replace(f":{CHAIN}", ":OTHER"), CHAIN),
        (FILE.replace("-I DOCKER", "# -I DOCKER"), CHAIN),
    ],
)
def test_a_file_without_this_stacks_filter(text: str, chain: str) -> None:
    assert packet_filter.parse_file(text, chain) is None


def test_what_iptables_lists_is_read() -> None:
    listed = f"-P INPUT ACCEPT\n-N DOCKER-USER\n-N {CHAIN}\n-A DOCKER-USER {JUMP}\n-A DOCKER-USER -j RETURN\n"
    assert packet_filter.parse_live(listed) == {"INPUT": [], "DOCKER-USER": [JUMP, "-j RETURN"], CHAIN: []}


def test_only_calls_of_this_very_chain_are_its_jumps() -> None:
    ours = [JUMP, f"-d 10.0.0.0/8 -j {CHAIN}", f"-d {SUBNET} -g {CHAIN}", f"-j {CHAIN}"]
    others = [f"{JUMP}_two", f"-d {SUBNET} -j X{CHAIN}", f'-m comment --comment "not -j {CHAIN}" -j DROP', ADMINISTRATORS]
    assert packet_filter.jumps_to(CHAIN, [*others, *ours]) == ours


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "Fba"}, "name is 'Fba'"),
        ({"name": "a" * 32}, "name is"),
        ({"name": "fba -j ACCEPT"}, "name is"),
        ({"subnet": "172.30.10.1/24"}, "subnet is '172.30.10.1/24'"),
        ({"subnet": "0.0.0.0/0"}, "subnet is"),
        ({"subnet": "fd00::/64"}, "subnet is"),
        ({"public": ["172.30.10.10", "8000"]}, "public has '8000'"),
        ({"peers": ["192.0.2.9", "fd00::1"]}, "peers has 'fd00::1'"),
        ({"peers": ["192.0.2.0/24"]}, "peers has"),
        ({"peers": None}, "peers"),
        ({"public": None}, "public"),
        ({"subnet": None}, "subnet"),
    ],
)
@pytest.mark.parametrize("table", ["stand-in"], indirect=True)
def test_a_bad_parameter_is_refused(table: Table, run: Run, whole: dict[str, Any], path: Path, change: dict[str, Any], named: str) -> None:
    before = table.chains()
    answer = run(**{name: value for name, value in {**whole, **change}.items() if value is not None})
    assert answer["failed"] is True
    assert named in answer["msg"]
    assert table.chains() == before
    assert not path.exists()


# The whole filter


def test_a_filter_is_made_once(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    before = table.chains()
    first = run(**whole)
    assert (first["changed"], first["rules"]) == (True, FILE)
    # Nothing else has changed: not the administrator's rules, and not the way to the host itself
    after = {**before, CHAIN: RULES, "DOCKER-USER": [JUMP, ADMINISTRATORS, "-j RETURN"]}
    assert table.chains() == after
    assert path.read_text() == FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    written = path.stat()
    second = run(**whole)
    assert (second["changed"], second["rules"], second["diff"]) == (False, FILE, [])
    assert table.chains() == after
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert list(path.parent.iterdir()) == [path]


def test_a_filter_before_dockers_first_start(table: Table, run: Run, whole: dict[str, Any]) -> None:
    table.do("-F FORWARD", "-F DOCKER-USER", "-X DOCKER-USER")
    assert run(**whole)["changed"] is True
    assert table.chains()["DOCKER-USER"] == [JUMP]
    assert table.chains()[CHAIN] == RULES
    assert run(**whole)["changed"] is False


@pytest.mark.parametrize(
    "drift",
    [
        [f"-F {CHAIN}"],
        ["-F DOCKER-USER"],
        ["-F DOCKER-USER", f"-F {CHAIN}", f"-X {CHAIN}"],
        [f"-D {CHAIN} -j DROP"],
        [f"-I {CHAIN} 1 -j RETURN"],
        [f"-A {CHAIN} -s 192.0.2.66/32 -j RETURN"],
        [f"-D {CHAIN} {RULES[2]}", f"-I {CHAIN} 1 {RULES[2]}"],
        [f"-A DOCKER-USER {JUMP}"],
        [f"-D DOCKER-USER {JUMP}", f"-A DOCKER-USER {JUMP}"],
        [f"-I DOCKER-USER 1 -s 192.0.2.66/32 -j {CHAIN}"],
    ],
)
def test_drift_in_the_kernel_is_repaired(table: Table, run: Run, whole: dict[str, Any], drift: list[str]) -> None:
    run(**whole)
    wanted = table.chains()
    table.do(*drift)
    assert table.chains() != wanted
    answer = run(**whole)
    assert answer["changed"] is True
    assert [diff["before_header"] for diff in answer["diff"]] == ["iptables"]
    repaired = table.chains()
    assert repaired[CHAIN] == RULES
    # What was flushed of the administrator's own is not made up for
    assert repaired["DOCKER-USER"] == [JUMP, *(rule for rule in wanted["DOCKER-USER"][1:] if "-F DOCKER-USER" not in drift)]
    assert run(**whole)["changed"] is False


def test_what_an_administrator_puts_before_the_jump_stays_there(table: Table, run: Run, whole: dict[str, Any]) -> None:
    run(**whole)
    table.do("-I DOCKER-USER 1 -s 203.0.113.5/32 -j ACCEPT")
    before = table.chains()
    assert run(**whole)["changed"] is False
    assert table.chains() == before


@pytest.mark.parametrize("table", ["stand-in"], indirect=True)
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text("x"), lambda path: path.chmod(0o644)], ids=["gone", "text", "mode"]
)
def test_drift_in_the_file_is_repaired(table: Table, run: Run, whole: dict[str, Any], path: Path, damage: Callable[[Path], Any]) -> None:
    run(**whole)
    damage(path)
    text = path.read_text() if path.exists() else ""
    answer = run(**whole)
    assert answer["changed"] is True
    # Of the mode alone, a diff has nothing to show
    assert [(diff["before"], diff["after"]) for diff in answer["diff"]] == ([] if text == FILE else [(text, FILE)])
    assert path.read_text() == FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run(**whole)["changed"] is False


def test_another_subnet_and_another_public_address(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    run(**whole)
    # Written in another way than iptables does
    whole.update(subnet="10.99.0.0/255.255.255.0", public=["10.99.0.10"])
    answer = run(**whole)
    assert answer["changed"] is True
    assert table.chains()["DOCKER-USER"] == [f"-d 10.99.0.0/24 -j {CHAIN}", ADMINISTRATORS, "-j RETURN"]
    assert table.chains()[CHAIN] == packet_filter.rules_of("10.99.0.0/24", ["10.99.0.10"], whole["peers"])
    assert SUBNET not in path.read_text()
    assert [SUBNET in diff["before"] and SUBNET not in diff["after"] for diff in answer["diff"]] == [True, True]
    assert run(**whole)["changed"] is False


def test_two_stacks_on_a_host(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    other = {"name": "fba_two", "path": str(path) + "_two", "subnet": "10.99.0.0/24", "public": [], "peers": []}
    run(**whole)
    assert run(**other)["changed"] is True
    both = table.chains()
    assert [run(**whole)["changed"], run(**other)["changed"]] == [False, False]
    assert sorted(both["DOCKER-USER"][:2]) == ["-d 10.99.0.0/24 -j FBA-fba_two", JUMP]
    assert run(name="fba_two", path=other["path"], state="absent")["changed"] is True
    assert table.chains()[CHAIN] == RULES
    assert table.chains()["DOCKER-USER"] == [JUMP, ADMINISTRATORS, "-j RETURN"]


# The peers alone


def test_the_peers_are_exchanged_and_nothing_else(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    run(**whole)
    before = table.chains()
    answer = run(peers=["192.0.2.77", "192.0.2.9"])
    assert answer["changed"] is True
    wanted = [*RULES[:5], "-s 192.0.2.77/32 -j RETURN", "-j DROP"]
    assert table.chains() == {**before, CHAIN: wanted}
    assert path.read_text() == answer["rules"] == FILE.replace("192.0.2.11/32", "192.0.2.77/32")
    assert run(peers=["192.0.2.9", "192.0.2.77"])["changed"] is False
    # And the whole filter with the same peers is the same filter
    assert run(**{**whole, "peers": ["192.0.2.9", "192.0.2.77"]})["changed"] is False
    assert run(peers=[])["changed"] is True
    assert table.chains()[CHAIN] == [*RULES[:4], "-j DROP"]


@pytest.mark.parametrize("table", ["stand-in"], indirect=True)
@pytest.mark.parametrize("content", [None, "", FILE.replace(CHAIN, "FBA-fba_two")], ids=["no file", "empty", "another's"])
def test_peers_where_there_is_no_filter(table: Table, run: Run, path: Path, content: str | None) -> None:
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
    before = table.chains()
    answer = run(peers=["192.0.2.77"])
    assert (answer["changed"], answer["rules"]) == (False, "")
    assert table.chains() == before
    assert path.read_text() == content if path.exists() else content is None


def test_peers_where_the_kernel_has_lost_the_filter(table: Table, run: Run, whole: dict[str, Any]) -> None:
    run(**whole)
    table.do("-F DOCKER-USER", f"-F {CHAIN}", f"-X {CHAIN}")
    assert run(peers=whole["peers"])["changed"] is True
    assert table.chains()["DOCKER-USER"] == [JUMP]
    assert table.chains()[CHAIN] == RULES


# Removal


def test_a_filter_is_removed(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    before = table.chains()
    run(**whole)
    table.do(f"-A DOCKER-USER -s 192.0.2.66/32 -j {CHAIN}")
    answer = run(state="absent")
    assert (answer["changed"], answer["rules"]) == (True, "")
    assert table.chains() == before
    assert not path.exists()
    again = run(state="absent")
    assert (again["changed"], again["diff"]) == (False, [])


@pytest.mark.parametrize("left", ["file", "rules"])
def test_what_is_left_of_a_filter_is_removed(table: Table, run: Run, whole: dict[str, Any], path: Path, left: str) -> None:
    before = table.chains()
    run(**whole)
    if left == "file":
        table.do(f"-D DOCKER-USER {JUMP}", f"-F {CHAIN}", f"-X {CHAIN}")
    else:
        path.unlink()
    assert run(state="absent")["changed"] is True
    assert table.chains() == before
    assert not path.exists()


# Check mode, and what goes wrong


def test_check_mode_tells_the_same_and_touches_nothing(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    steps = [whole, {**whole, "subnet": "10.99.0.0/24"}, {"peers": ["192.0.2.77"]}, {"state": "absent"}]
    for step in steps:
        before = table.chains(), path.read_text() if path.exists() else None
        told = run(check_mode=True, **step)
        assert (table.chains(), path.read_text() if path.exists() else None) == before
        done = run(**step)
        assert told == done
        assert done["changed"] is True
        assert len(done["diff"]) == 2
    assert not path.exists()


def test_a_host_lacks_it_as_long_as_it_would_be_changed(
    table: Table, run: Run, run_module: Callable[..., ModuleRun], whole: dict[str, Any], path: Path
) -> None:
    def lacks(**change: Any) -> bool:
        answer = run_module(host_lacks.main, {"firewall": {"name": "fba", "path": str(path), **whole, **change}}).answer
        assert answer["lacking"] == answer["firewall"]
        return bool(answer["firewall"])

    assert lacks()
    # There is nothing to remove
    assert not lacks(state="absent")
    run(**whole)
    assert not lacks()
    assert lacks(peers=[])
    assert lacks(state="absent")
    path.chmod(0o644)
    assert lacks()
    run(**whole)
    table.do(f"-F {CHAIN}")
    assert lacks()


def test_a_host_without_iptables_lacks_it(
    run_module: Callable[..., ModuleRun], whole: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packet_filter.Iptables, "there", False)
    for state, lacking in (("present", True), ("absent", False)):
        given = {"name": "fba", "path": str(path), **whole, "state": state}
        assert run_module(host_lacks.main, {"firewall": given}).answer["firewall"] is lacking
    wrong = run_module(host_lacks.main, {"firewall": {"name": "fba", "path": str(path), **whole, "peers": ["nobody"]}}).answer
    assert wrong["failed"]
    assert wrong["msg"] == "peers has 'nobody': allowed are IPv4 addresses"


def test_what_iptables_refuses_is_told_and_not_kept(
    table: Table, run: Run, whole: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table.chains()
    monkeypatch.setattr(packet_filter, "chain_name", lambda name: f"FBA-{name:_<40}")
    answer = run(**whole)
    assert answer["failed"] is True
    assert answer["msg"].startswith("iptables-restore refuses: iptables")
    assert table.chains() == before
    assert not path.exists()


def test_what_cannot_be_removed_is_left_as_a_whole(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    run(**whole)
    table.do(f"-A FORWARD -j {CHAIN}")
    before = table.chains()
    answer = run(state="absent")
    assert answer["failed"] is True
    assert "iptables-restore refuses: " in answer["msg"]
    assert table.chains() == before
    assert path.read_text() == FILE


def test_a_host_without_iptables(run: Run, whole: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall.AnsibleModule, "get_bin_path", lambda *_arguments, **_options: None)
    answer = run(**whole)
    assert answer["failed"] is True
    assert "install the package iptables" in answer["msg"]
    assert not path.exists()
    # It would be installed first
    assert run(check_mode=True, **whole)["changed"] is True
    assert run(peers=["192.0.2.77"])["changed"] is False
    assert run(state="absent")["changed"] is False
    path.parent.mkdir()
    path.write_text(FILE)
    assert run(state="absent")["changed"] is True
    assert not path.exists()


# The script of the boot


def load(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as the service does."""
    return subprocess.run(["/bin/sh", SCRIPT, path], capture_output=True, text=True, check=False)


def test_a_boot_brings_back_what_the_module_made(table: Table, run: Run, whole: dict[str, Any], path: Path) -> None:
    run(**whole)
    table.do("-F FORWARD", "-F DOCKER-USER", "-X DOCKER-USER", f"-F {CHAIN}", f"-X {CHAIN}")
    done = load(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = table.chains()
    assert after["DOCKER-USER"] == [JUMP]
    assert run(**whole)["changed"] is False
    assert load(path).returncode == 0
    assert table.chains() == after


@pytest.mark.parametrize("drift", [[], [f"-D DOCKER-USER {JUMP}"], [f"-F {CHAIN}"]])
def test_the_script_beside_what_is_there(table: Table, run: Run, whole: dict[str, Any], path: Path, drift: list[str]) -> None:
    run(**whole)
    before = table.chains()
    table.do(*drift)
    assert load(path).returncode == 0
    assert table.chains() == before


@pytest.mark.parametrize("content", [None, "*filter\n-A NOTHING -j DROP\nCOMMIT\n"])
def test_the_service_fails_where_the_rules_cannot_be_loaded(table: Table, path: Path, content: str | None) -> None:
    before = table.chains()
    path.parent.mkdir()
    if content:
        path.write_text(content)
    done = load(path)
    assert done.returncode != 0
    assert done.stderr
    assert table.chains() == before
