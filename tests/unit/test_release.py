"""Runs and releases: what has happened where, who holds the lock, what is recorded, what is there to go back to."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.loader import lookup_loader

from ansible_collections.fba.stack.plugins.action import journal as journal_action
from ansible_collections.fba.stack.plugins.action import lock as lock_action
from ansible_collections.fba.stack.plugins.filter.release import (
    failure_reason,
    failure_text,
    image_before,
    log_entries,
    outcome,
    plan_rows,
    reached_nginx,
    release_entry,
    release_name,
    released_text,
    rollback_target,
    run_failures,
    unlocked_text,
)
from ansible_collections.fba.stack.plugins.modules import kept_plans, lock, run_record

Run = Callable[..., dict[str, Any]]


# The journal of a run


@pytest.fixture
def journal(run_action: Run) -> Callable[..., dict[str, Any]]:
    """A function that notes something on a host whose facts it is given, and returns the facts after it."""

    def note(facts: dict[str, Any], **args: Any) -> dict[str, Any]:
        given = run_action(journal_action.ActionModule, args, {"ansible_facts": facts})
        assert given["changed"] is False
        return {**facts, **given["ansible_facts"]}

    return note


VERDICT = {"container": "fba_server_1", "service": "server", "what": "replaced", "why": "another image", "image": "fba/app:2", "spec": "b"}


def test_a_step_begins_and_ends(journal: Run) -> None:
    facts = journal(journal(journal({}, step="workers"), step="workers", state="done"), step="servers")
    steps = facts["fba_journal"]["steps"]
    assert [(step["step"], step["ended"] is None) for step in steps] == [("workers", False), ("servers", True)]
    assert steps[0]["began"] <= steps[0]["ended"] <= steps[1]["began"]
    with pytest.raises(AnsibleActionFail, match="step nginx has not begun"):
        journal(facts, step="nginx", state="done")


def test_of_a_failure_the_end_of_what_it_says_is_kept(journal: Run) -> None:
    facts = journal(journal({}, step="servers"), step="servers", state="failed", task="Run it", message="x" * 9000 + "the reason")
    failure = facts["fba_journal"]["steps"][0]["failure"]
    assert failure["task"] == "Run it" and failure["message"].endswith("the reason") and len(failure["message"]) == 8000


def test_what_has_become_of_a_container_is_what_is_there(journal: Run) -> None:
    before = {"fba_containers": {"fba_server_1": {"service": "server", "image": "fba/app:1", "spec": "a", "state": "running"}}}
    facts = journal(before, container=VERDICT)
    assert facts["fba_journal"]["containers"] == [VERDICT]
    assert facts["fba_containers"]["fba_server_1"] == {"service": "server", "image": "fba/app:2", "spec": "b", "state": "running"}
    # A plan changes nothing
    assert journal(before, container=VERDICT, applied=False)["fba_containers"] == before["fba_containers"]
    assert journal(before, container={**VERDICT, "what": "run"})["fba_containers"]["fba_server_1"]["state"] == "exited"


def test_one_that_finishes_beside_its_successor_is_there_too(journal: Run) -> None:
    old = {"service": "server", "image": "fba/app:1", "spec": "a", "state": "running"}
    facts = journal({"fba_containers": {"fba_server_1": old}}, container=VERDICT, leaves_as="fba_server_1_leaving")
    assert facts["fba_containers"]["fba_server_1_leaving"] == old
    assert facts["fba_containers"]["fba_server_1"]["image"] == "fba/app:2"


def step(name: str, ended: float | None = 2.0, **failure: str) -> dict[str, Any]:
    """A step of a journal."""
    return {"step": name, "began": 1.0, "ended": ended, **({"failure": failure} if failure else {})}


def hosts(**steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The variables of hosts that have taken these steps."""
    return {
        host: {"ansible_facts": {"fba_journal": {"steps": taken, "containers": [VERDICT] if taken else []}}}
        for host, taken in steps.items()
    } | {"other": {}}


def test_the_first_failure_is_the_first_reason() -> None:
    known = hosts(app1=[step("servers", 9.0, task="b", message="second")], work1=[step("workers", 5.0, task="a", message="first")])
    assert [failure["message"] for failure in run_failures(known, ["app1", "work1", "other"])] == ["first", "second"]
    text = failure_text(run_failures(known, known), "went back")
    assert text.startswith("work1, workers: a\nfirst\napp1, servers: b\nsecond") and "serves as it did" in text


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"failed": True, "msg": "It is full"}, "It is full"),
        ({"failed": True, "msg": "non-zero return code", "stderr": "no such role\n", "stdout": "x"}, "non-zero return code\nno such role"),
        ({"failed": True, "msg": "Unknown error.", "rc": 41, "stderr": "", "stdout": "P00 ERROR\n"}, "Unknown error.\nP00 ERROR"),
        (
            {"msg": "One or more items failed", "results": [{"msg": "well"}, {"failed": True, "msg": "a"}, {"failed": True, "msg": "b"}]},
            "a\nb",
        ),
        ({"failed": True}, "it does not say why"),
    ],
)
def test_the_reason_is_that_of_what_has_failed(result: dict[str, Any], reason: str) -> None:
    assert failure_reason(result) == reason


@pytest.mark.parametrize(
    ("steps", "ended"),
    [
        ([step("workers")], "done"),
        ([step("migration", task="t", message="m")], "failed"),
        ([step("servers", task="t", message="m"), step("back: server")], "went back"),
        ([step("restore of redis", task="t", message="m")], "stopped"),
        ([step("restore of postgres"), step("redis", task="t", message="m")], "stopped"),
        ([step("servers", task="t", message="m"), step("back: server", task="t", message="m")], "stuck"),
    ],
)
def test_how_a_run_has_ended(steps: list[dict[str, Any]], ended: str) -> None:
    assert outcome(hosts(app1=steps, work1=[step("workers")]), ["app1", "work1"]) == ended


def test_the_plan_is_in_the_order_in_which_services_start() -> None:
    known = hosts(app1=[step("servers")])
    known["app1"]["ansible_facts"]["fba_journal"]["containers"] = [
        {**VERDICT, "service": "nginx", "container": "fba_nginx", "what": "left", "why": ""},
        VERDICT,
        {**VERDICT, "service": "migrate", "container": "fba_migrate", "what": "run", "why": "not yet"},
    ]
    assert plan_rows(known, ["app1", "other"]) == [
        ["migrate", "app1", "fba_migrate", "run", "not yet"],
        ["server", "app1", "fba_server_1", "replaced", "another image"],
        ["nginx", "app1", "fba_nginx", "left", "as it should be"],
    ]


def test_the_log_says_who_did_what_and_how_it_ended() -> None:
    run = {"run": "r2", "verb": "release", "owner": "ann@laptop", "reason": "prices", "since": "2026-11-21T10:00:00Z", "began": 0.0}
    facts = {"fba_run": run, "fba_journal": {"steps": [step("servers")], "containers": [VERDICT, {**VERDICT, "what": "left"}]}}
    release = {"release": "2", "image": "fba/app:2", "version": "1.1", "commit": "abc"}
    (entry,) = log_entries(facts, release, [], "done")
    assert (entry["owner"], entry["verb"], entry["outcome"], entry["commit"]) == ("ann@laptop", "release", "done", "abc")
    assert entry["steps"] == [{"step": "servers", "seconds": 1.0}]
    assert entry["containers"] == [{"container": "fba_server_1", "what": "replaced", "why": "another image"}]
    assert "failures" not in entry
    facts["fba_run"] = {**run, "interrupted": {**run, "run": "r1"}}
    assert [(entry["run"], entry["outcome"]) for entry in log_entries(facts, release, [{"host": "app1"}], "failed")] == [
        ("r1", "interrupted"),
        ("r2", "failed"),
    ]


def test_a_release_is_recorded_with_its_source_and_whose_it_is() -> None:
    run = {"run": "r2", "verb": "release", "owner": "ann@laptop", "reason": "prices", "since": "2026-11-21T10:00:00Z", "began": 0.0}
    assert release_entry("fba/app:2", {"version": "1.1", "commit": "abc", "incompatible": {}}, run, {"0007.py": "gone"}, False) == {
        "release": "2",
        "image": "fba/app:2",
        "version": "1.1",
        "commit": "abc",
        "by": "ann@laptop",
        "at": "2026-11-21T10:00:00Z",
        "reason": "prices",
        "incompatible": {"0007.py": "gone"},
        "rollback": False,
    }


def test_what_ran_before_there_was_a_record() -> None:
    def variables(**containers: str) -> dict[str, Any]:
        before = {f"fba_{name}": {"service": name, "image": f"fba/app:{name}", "state": state} for name, state in containers.items()}
        return {"app1": {"ansible_facts": {"fba_containers_before": before}}}

    assert image_before(variables(worker="running", server="running"), "app1") == "fba/app:server"
    assert image_before(variables(server="exited", beat="running", redis="running"), "app1") == "fba/app:beat"
    assert image_before(variables(redis="running"), "app1") == image_before({"app1": {}}, "app1") == ""


def test_who_has_nginx_to_be_told() -> None:
    groups = {"nginx": ["edge1", "edge2", "edge3", "edge4"]}
    running = {"ansible_facts": {"fba_containers": {"fba_nginx": {"state": "running"}}}}
    stopped = {"ansible_facts": {"fba_containers": {"fba_nginx": {"state": "exited"}}}}
    known = {"edge1": running, "edge2": stopped, "edge3": {}, "edge4": running}
    assert reached_nginx(groups, known, ["edge4"], "fba_nginx", limited=False) == ["edge1"]
    assert reached_nginx(groups, known, [], "fba_nginx", limited=True) == ["edge1", "edge3", "edge4"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("fba/app:9be3dbb83132", "9be3dbb83132"),
        ("registry.example:5000/shop:2.1", "2.1"),
        ("registry.example:5000/shop:2.1@sha256:0123456789abcdef", "2.1"),
        ("registry.example:5000/shop@sha256:0123456789abcdef", "0123456789ab"),
        ("registry.example:5000/shop", "latest"),
    ],
)
def test_the_name_of_a_release(image: str, name: str) -> None:
    assert release_name(image) == name


def test_a_release_says_that_it_is_out_and_how_to_go_back() -> None:
    record = {
        "current": "B",
        "releases": [{"release": "B", "previous": "A", "version": "1.4", "commit": "abc"}, {"release": "A", "previous": ""}],
    }
    text = released_text(record, {"began": time.time() - 90})
    assert text == "Release B (1.4, abc) is out, after 90 s. Before it was A: rollback.yml (make rollback) goes back."
    assert released_text({**record, "current": "A"}, {"began": time.time()}) == "Release A is out, after 0 s. There is none before it."
    assert released_text({}, {"began": 0.0}) == ""


# Going back


RECORD = {
    "current": "C",
    "releases": [
        {"release": "C", "image": "fba/app:C", "previous": "B", "incompatible": {"0003.py": "drops a column", "0002.py": "renames"}},
        {"release": "B", "image": "fba/app:B", "previous": "A", "incompatible": {"0002.py": "renames"}},
        {"release": "A", "image": "fba/app:A", "previous": ""},
    ],
}


def without_marks(record: dict[str, Any]) -> dict[str, Any]:
    """A record of releases that are all compatible."""
    return {**record, "releases": [{**each, "incompatible": {}} for each in record["releases"]]}


def test_a_rollback_goes_to_the_release_before() -> None:
    found = rollback_target(without_marks(RECORD))
    assert (found["release"]["release"], found["refusals"]) == ("B", [])
    assert rollback_target(without_marks(RECORD), "A")["release"]["release"] == "A"
    # From there, on to what was before that, and forward again by name
    back = {**without_marks(RECORD), "current": "B"}
    assert rollback_target(back)["release"]["release"] == "A"
    assert rollback_target(back, "C")["release"]["release"] == "C"


@pytest.mark.parametrize(
    ("record", "wanted", "refusal"),
    [
        ({}, "", "no release is recorded here yet"),
        ({**RECORD, "current": "A"}, "", "A is the first release that is recorded"),
        (RECORD, "X", "fba_release is X: recorded are C, B, A"),
        (RECORD, "C", "fba_release is C, which is the current release"),
        (RECORD, "", "0003.py, which C has and B has not, is marked as not compatible: drops a column"),
    ],
)
def test_what_cannot_be_gone_back_to_is_refused(record: dict[str, Any], wanted: str, refusal: str) -> None:
    (found,) = rollback_target(record, wanted)["refusals"]
    assert found.startswith(refusal)


def test_every_mark_on_the_way_refuses() -> None:
    assert len(rollback_target(RECORD, "A")["refusals"]) == 2


# The record on a host


@pytest.fixture
def record(tmp_path: Path, run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A function that ends a run on a host whose engine has some images and containers."""
    engine = {
        "/images/": {"Id": "sha256:id", "RepoDigests": []},
        "/images/json": [{"Id": name, "RepoTags": [f"fba/app:{name}"]} for name in "ABCDEFG"],
        "/containers/json": [{"Names": ["/fba_server_1"], "ImageID": "A"}],
    }

    def ask(path: str) -> Any:
        return next((answer for start, answer in reversed(engine.items()) if path.startswith(start)), None)

    monkeypatch.setattr(run_record, "ask_engine", ask)

    def end(succeeded: bool = True, check_mode: bool = False, entries: Any = ({"run": "r"},), **more: Any) -> dict[str, Any]:
        args = {"state_dir": str(tmp_path / "state"), "log": str(tmp_path / "log" / "deploys.jsonl"), "entries": list(entries)}
        return run_module(run_record.main, {**args, "succeeded": succeeded, **more}, check_mode=check_mode).answer  # type: ignore[attr-defined,no-any-return]

    return end


def release(name: str, **more: Any) -> dict[str, Any]:
    """A release."""
    return {"release": name, "image": f"fba/app:{name}", **more}


def test_releases_are_recorded_with_what_was_before_them(record: Run) -> None:
    first = record(release=release("B"), before="fba/app:A")
    assert first["changed"] and first["record"]["current"] == "B"
    assert [(each["release"], each["previous"], each["digest"]) for each in first["record"]["releases"]] == [
        ("B", "A", "sha256:id"),
        ("A", "", "sha256:id"),
    ]
    again = record(release=release("B"), before="fba/app:B")
    assert not again["changed"] and again["record"] == first["record"]


def test_a_rollback_changes_what_is_current_and_nothing_else(record: Run) -> None:
    for name in "ABC":
        record(release=release(name))
    back = record(release=release("B", rollback=True))["record"]
    assert (back["current"], [each["release"] for each in back["releases"]]) == ("B", ["C", "B", "A"])
    assert {each["release"]: each["previous"] for each in back["releases"]} == {"A": "", "B": "A", "C": "B"}
    # What is released then, goes back to where it came from
    following = record(release=release("D"))["record"]
    assert {each["release"]: each["previous"] for each in following["releases"]}["D"] == "B"


def test_old_releases_go_but_never_the_one_to_go_back_to(record: Run) -> None:
    for name in "ABCDE":
        answer = record(release=release(name), keep=3)
    assert [each["release"] for each in answer["record"]["releases"]] == ["E", "D", "C"]
    # A runs in a container, and F and G were never released
    assert answer["unrecorded"] == ["fba/app:B", "fba/app:F", "fba/app:G"]
    record(release=release("C", rollback=True), keep=3)
    answer = record(release=release("F"), keep=2)
    assert [each["release"] for each in answer["record"]["releases"]] == ["F", "E", "C"]


def test_the_log_keeps_its_last_lines(record: Run, tmp_path: Path) -> None:
    record(entries=[{"run": str(number)} for number in range(1005)])
    record(succeeded=False, entries=[{"run": "last"}], release=release("B"))
    lines = (tmp_path / "log" / "deploys.jsonl").read_text(encoding="utf-8").splitlines()
    assert (len(lines), json.loads(lines[-1])) == (1000, {"run": "last"})
    # And of a run that failed, no release is recorded
    assert not (tmp_path / "state" / "releases.json").exists()


def test_a_run_that_ends_well_keeps_its_plans_and_another_does_not(record: Run, tmp_path: Path, run_module: Run) -> None:
    plans = tmp_path / "state" / "plans"
    plans.mkdir(parents=True)

    def lay(name: str, content: dict[str, Any]) -> None:
        (plans / name).write_text(json.dumps({"service": "server", **content}), encoding="utf-8")

    def kept(service: str = "server") -> Any:
        return run_module(kept_plans.main, {"path": str(plans), "service": service}).answer["plans"]  # type: ignore[attr-defined]

    lay("fba_server_1.json", {"image": "A"})
    assert kept() == []
    lay("fba_server_1.json.next", {"image": "B"})
    assert kept() == [{"service": "server", "image": "A"}] and kept("worker") == []
    record(succeeded=False)
    assert [path.name for path in plans.iterdir()] == ["fba_server_1.json"]
    lay("fba_server_1.json.next", {"image": "B"})
    # Of a container that is gone
    lay("fba_server_2.json", {"image": "A"})
    record()
    assert [path.name for path in plans.iterdir()] == ["fba_server_1.json"]
    assert "B" in (plans / "fba_server_1.json").read_text(encoding="utf-8")


def test_check_mode_only_says_what_would_be_recorded(record: Run, tmp_path: Path) -> None:
    answer = record(release=release("B"), check_mode=True)
    assert answer["changed"] and answer["record"]["current"] == "B"
    assert list(tmp_path.glob("state/*")) == list(tmp_path.glob("log/*")) == []


def test_a_record_that_cannot_be_read_is_not_overwritten(record: Run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "releases.json").write_text("{", encoding="utf-8")
    assert "is no JSON document" in record(release=release("B"))["msg"]


# The lock


@pytest.fixture
def ask(tmp_path: Path, run_module: Run, run_action: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """A function that asks for the lock through the action, which runs the module here."""
    path = tmp_path / "state" / "lock.json"

    def execute(_self: Any, _name: str, args: dict[str, Any], task_vars: Any) -> Any:
        return run_module(lock.main, args, check_mode=_self._task.check_mode).answer  # type: ignore[attr-defined]

    monkeypatch.setattr(lock_action.ActionModule, "_execute_module", execute)
    monkeypatch.setattr(lock_action, "INTERVAL", 0.01)

    def run(facts: dict[str, Any] | None = None, check_mode: bool = False, **args: Any) -> dict[str, Any]:
        return run_action(lock_action.ActionModule, {"path": str(path), **args}, {"ansible_facts": facts or {}}, check_mode=check_mode)

    return run


def dead(tmp_path: Path) -> None:
    """Let the process that took the lock have ended."""
    path = tmp_path / "state" / "lock.json"
    holder = json.loads(path.read_text(encoding="utf-8"))
    process = subprocess.Popen(["true"])
    process.wait()
    holder["process"] = {"pid": process.pid, "started": "1"}
    path.write_text(json.dumps(holder), encoding="utf-8")


def test_two_people_cannot_hold_the_lock(ask: Run, tmp_path: Path) -> None:
    mine = ask(owner="ann@laptop", verb="release", reason="prices")
    assert mine["ansible_facts"]["fba_run"]["owner"] == "ann@laptop"
    assert stat.S_IMODE((tmp_path / "state" / "lock.json").stat().st_mode) == 0o644
    for state in ("held", "free"):
        refused = ask(owner="ben@desk", state=state)
        assert refused["failed"]
        assert "ann@laptop has locked the stack since" in refused["msg"] and "for release (prices)" in refused["msg"]
    assert ask(mine["ansible_facts"], state="released")["holder"]["owner"] == "ann@laptop"
    assert not ask(owner="ben@desk").get("failed")


def test_who_waits_gets_it_when_it_is_given_back(ask: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(owner="ann@laptop")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            (tmp_path / "state" / "lock.json").unlink()

    monkeypatch.setattr(lock_action.time, "sleep", sleep)
    assert not ask(owner="ben@desk", wait=60).get("failed")
    assert len(slept) == 3


def test_an_interrupted_run_is_gone_on_with_by_whoever_it_was(ask: Run, tmp_path: Path) -> None:
    first = ask(owner="ann@laptop")["ansible_facts"]["fba_run"]
    # It still goes on: this very process
    refused = ask(owner="ann@laptop")
    assert refused["failed"] and "That run still goes on" in refused["msg"]
    dead(tmp_path)
    assert ask(owner="ben@desk")["failed"]
    assert not ask(owner="ann@laptop", state="free").get("failed")
    following = ask(owner="ann@laptop")["ansible_facts"]["fba_run"]
    assert following["interrupted"]["run"] == first["run"] != following["run"]
    # The run before, if it wakes up, gives back nothing that is not its own
    assert ask({"fba_run": first}, state="released")["holder"]["run"] == following["run"]
    assert ask(owner="ben@desk")["failed"]


def test_who_takes_the_lock_learns_whether_somebody_else_has_had_it_since_he_looked(ask: Run, tmp_path: Path) -> None:
    def look_and_take(between: Callable[[], Any] = lambda: None, **args: Any) -> bool:
        looked = ask(owner="ann@laptop", state="free")
        between()
        taken = ask(owner="ann@laptop", last=looked["last"], **args)
        if not args.get("check_mode"):
            ask(taken["ansible_facts"], state="released")
        return bool(taken["others"])

    def somebody(state: str = "released") -> None:
        ask(ask(owner="ben@desk")["ansible_facts"], state=state)

    assert not look_and_take()
    assert not look_and_take()
    assert look_and_take(somebody)
    assert look_and_take(lambda: somebody("broken"))
    assert not look_and_take()
    # A plan as well, which takes nothing
    assert not look_and_take(check_mode=True)
    assert look_and_take(somebody, check_mode=True)
    # Who has not looked, does not know
    first = ask(owner="ann@laptop")
    assert first["others"]
    # An interrupted run has left things behind, whether or not it was seen
    dead(tmp_path)
    assert look_and_take()
    assert not look_and_take()

    def interrupted() -> None:
        ask(owner="ann@laptop")
        dead(tmp_path)

    assert look_and_take(interrupted)


def test_the_lock_can_be_taken_away(ask: Run) -> None:
    ask(owner="ann@laptop", verb="release")
    broken = ask(owner="ben@desk", state="broken")
    assert broken["changed"] and broken["holder"]["owner"] == "ann@laptop"
    assert "The lock of ann@laptop is gone" in unlocked_text(broken["holder"])
    again = ask(owner="ben@desk", state="broken")
    assert not again["changed"] and unlocked_text(again["holder"]) == "The stack was not locked."


def test_a_plan_takes_no_lock(ask: Run, tmp_path: Path) -> None:
    assert ask(check_mode=True)["ansible_facts"]["fba_run"]["run"]
    assert not (tmp_path / "state").exists()


def test_a_lock_that_cannot_be_read_is_held(ask: Run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock.json").write_text("{", encoding="utf-8")
    assert "cannot be read" in ask(owner="ann@laptop")["msg"]


def test_a_process_is_told_from_a_later_one() -> None:
    here = {"controller": "laptop", "process": {"pid": os.getpid(), "started": lock_action.started(os.getpid())}}
    assert lock_action.goes_on(here, "laptop")
    assert not lock_action.goes_on(here, "desk")
    assert not lock_action.goes_on({**here, "process": {"pid": os.getpid(), "started": "1"}}, "laptop")
    assert not lock_action.goes_on({}, "laptop")


# What is known of the source


def source_version(path: Path | str, migrations: str = "") -> Any:
    """What the lookup says."""
    return lookup_loader.get("fba.stack.source_version").run([str(path)], migrations=migrations)[0]


def test_the_source_tells_version_commit_and_marks(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "2.4.1"\n', encoding="utf-8")
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001.py").write_text("# fine\n", encoding="utf-8")
    (versions / "0002.py").write_text('"""Prices."""\n# fba: not compatible: prices have no currency any more \n', encoding="utf-8")
    found = source_version(tmp_path, "migrations/versions")
    assert found == {"version": "2.4.1", "commit": "", "incompatible": {"0002.py": "prices have no currency any more"}}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = source_version(tmp_path)["commit"]
    assert len(clean) == 12
    (versions / "0001.py").write_text("# changed\n", encoding="utf-8")
    assert source_version(tmp_path)["commit"] == f"{clean}-dirty"


def test_of_no_source_nothing_is_known(tmp_path: Path) -> None:
    nothing = {"version": "", "commit": "", "incompatible": {}}
    assert source_version("") == source_version(tmp_path / "nowhere") == source_version(tmp_path) == nothing
