"""The module that keeps a container's folder of files, against a real folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.modules import container_files

from conftest import ModuleRun

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users, as root on a host does")

OWNER = 4242
SECRET = "hunter2 is in this file\nand nowhere else\n"
Run = Callable[..., ModuleRun]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The container's folder, not there yet."""
    return tmp_path / "fba_redis"


@pytest.fixture
def args(root: Path, tmp_path: Path) -> dict[str, Any]:
    """A plain file and a secret one, and a folder for logs."""
    return {
        "root": str(root),
        "owner": OWNER,
        "log_dir": str(tmp_path / "log"),
        "files": [
            {"path": f"{root}/dir-etc-redis/redis.conf", "mode": "0444", "content": "appendonly yes\n"},
            {"path": f"{root}/dir-run-secrets/password", "mode": "0400", "secret_content": SECRET},
        ],
    }


@pytest.fixture
def run(run_module: Run) -> Run:
    """Run the module; nothing that it prints may have the secret."""

    def run(args: dict[str, Any], **options: Any) -> ModuleRun:
        done = run_module(container_files.main, args, diff=True, **options)
        assert "hunter2" not in done.text
        assert "nowhere else" not in done.text
        return done

    return run


def facts(path: Path) -> tuple[int, int, int]:
    """Permissions, user and group."""
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def everything(root: Path) -> dict[str, Any]:
    """All below a folder, with content, owner and times."""
    return {
        str(path): (facts(path), path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(root.rglob("*"))
    }


def test_files_are_made_once(run: Run, args: dict[str, Any], root: Path, tmp_path: Path) -> None:
    first = run(args).answer
    assert first["changed"] is True
    assert first["changed_files"] == [entry["path"] for entry in args["files"]]
    assert (root / "dir-etc-redis/redis.conf").read_text() == "appendonly yes\n"
    assert (root / "dir-run-secrets/password").read_text() == SECRET
    assert facts(root / "dir-etc-redis/redis.conf") == (0o444, OWNER, OWNER)
    assert facts(root / "dir-run-secrets/password") == (0o400, OWNER, OWNER)
    # The container cannot change what it mounts, but for its logs
    assert facts(root) == facts(root / "dir-etc-redis") == (0o755, 0, 0)
    assert facts(tmp_path / "log") == (0o755, OWNER, OWNER)

    before = everything(tmp_path)
    second = run(args).answer
    assert (second["changed"], second["changed_files"]) == (False, [])
    assert everything(tmp_path) == before


def test_a_changed_file_is_replaced_as_a_whole(run: Run, args: dict[str, Any], root: Path) -> None:
    run(args)
    path = root / "dir-etc-redis/redis.conf"
    args["files"][0]["content"] = "appendonly no\n"
    with path.open() as reader:
        answer = run(args).answer
        assert reader.read() == "appendonly yes\n"
    assert answer["changed_files"] == [str(path)]
    assert path.read_text() == "appendonly no\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["redis.conf"]


@pytest.mark.parametrize("name", ["dir-etc-redis/redis.conf", "dir-run-secrets/password"])
@pytest.mark.parametrize(
    "damage",
    [lambda path: path.chmod(0o666), lambda path: os.chown(path, 0, -1), lambda path: os.chown(path, -1, 0)],
    ids=["mode", "owner", "group"],
)
def test_mode_and_owner_are_repaired(run: Run, args: dict[str, Any], root: Path, name: str, damage: Callable[[Path], None]) -> None:
    run(args)
    before = facts(root / name)
    damage(root / name)
    assert run(args).answer["changed_files"] == [str(root / name)]
    assert facts(root / name) == before
    assert run(args).answer["changed"] is False


def test_a_folder_is_repaired(run: Run, args: dict[str, Any], root: Path) -> None:
    run(args)
    (root / "dir-etc-redis").chmod(0o777)
    os.chown(root / "dir-etc-redis", OWNER, OWNER)
    assert run(args).answer["changed"] is True
    assert facts(root / "dir-etc-redis") == (0o755, 0, 0)


def test_a_link_in_a_files_place_is_replaced_and_not_followed(run: Run, args: dict[str, Any], root: Path, tmp_path: Path) -> None:
    run(args)
    other = tmp_path / "other"
    other.write_text("appendonly yes\n")
    (root / "dir-etc-redis/redis.conf").unlink()
    (root / "dir-etc-redis/redis.conf").symlink_to(other)
    assert run(args).answer["changed"] is True
    assert not (root / "dir-etc-redis/redis.conf").is_symlink()
    assert facts(other)[1] == 0


def test_what_is_no_longer_wanted_goes(run: Run, args: dict[str, Any], root: Path, tmp_path: Path) -> None:
    run(args)
    (root / "stray").write_text("x")
    (root / "dir-old/sub").mkdir(parents=True)
    (root / "dir-old/sub/file").write_text("x")
    (root / "dir-old/link").symlink_to(tmp_path)
    (tmp_path / "log/fba.log").write_text("a log stays")
    args["files"].pop()
    answer = run(args).answer
    assert {str(root / name) for name in ("stray", "dir-old", "dir-run-secrets/password")} <= set(answer["changed_files"])
    assert [path.name for path in root.iterdir()] == ["dir-etc-redis"]
    assert (tmp_path / "log/fba.log").exists()
    assert run(args).answer["changed"] is False


def test_one_file_can_be_changed_alone(run: Run, args: dict[str, Any], root: Path) -> None:
    run(args)
    changed = f"{root}/dir-etc-redis/redis.conf"
    done = run(
        {"root": str(root), "owner": OWNER, "exclusive": False, "files": [{"path": changed, "mode": "0444", "content": "appendonly no\n"}]}
    )
    assert done.answer["changed_files"] == [changed]
    assert Path(changed).read_text() == "appendonly no\n"
    assert (root / "dir-run-secrets/password").read_text() == SECRET


def test_check_mode_tells_the_same_and_touches_nothing(run: Run, args: dict[str, Any], root: Path, tmp_path: Path) -> None:
    told = run(args, check_mode=True).answer
    assert told["changed"] is True
    assert told["changed_files"] == [entry["path"] for entry in args["files"]]
    assert list(tmp_path.iterdir()) == []

    run(args)
    (root / "stray").write_text("x")
    args["files"][0]["content"] = "appendonly no\n"
    before = everything(tmp_path)
    told = run(args, check_mode=True).answer
    assert everything(tmp_path) == before
    done = run(args).answer
    assert told["changed_files"] == done["changed_files"] != []
    assert told["diff"] == done["diff"]


def test_a_kept_file_is_made_where_there_is_none_and_stays_as_it_is(run: Run, args: dict[str, Any], root: Path) -> None:
    path = root / "dir-etc-redis/redis.conf"
    args["files"][0]["keep"] = True
    assert str(path) in run(args).answer["changed_files"]
    assert path.read_text() == "appendonly yes\n"
    path.chmod(0o644)
    path.write_text("appendonly no\n")
    for check_mode in (True, False):
        answer = run(args, check_mode=check_mode).answer
        # Who may read it is the spec's; what it says is not
        assert (answer["changed_files"], answer["diff"]) == ([str(path)], [])
    assert (path.read_text(), facts(path)) == ("appendonly no\n", (0o444, OWNER, OWNER))
    assert run(args).answer["changed"] is False


def test_a_kept_file_that_is_empty_is_there(run: Run, args: dict[str, Any], root: Path) -> None:
    run(args)
    args["files"][0]["keep"] = True
    (root / "dir-etc-redis/redis.conf").write_text("")
    assert run(args).answer["changed"] is False


def test_the_diff_shows_content_but_no_secret(run: Run, args: dict[str, Any], root: Path) -> None:
    run(args)
    args["files"][0]["content"] = "appendonly no\n"
    # The old secret is one too
    (root / "dir-run-secrets/password").write_text("hunter2 of before")
    plain, secret = run(args).answer["diff"]
    assert (plain["before"], plain["after"]) == ("appendonly yes\n", "appendonly no\n")
    assert "secret" in secret["before"]
    assert "secret" in secret["after"]
    assert secret["before"] != secret["after"]


def test_a_file_that_was_a_secret_is_not_shown_when_it_is_none_any_more(run: Run, args: dict[str, Any], root: Path) -> None:
    run(args)
    args["files"][1] = {"path": args["files"][1]["path"], "mode": "0444", "content": "public now"}
    (diff,) = run(args).answer["diff"]
    assert diff["after"] == "public now"


@pytest.mark.parametrize("place", ["/elsewhere/file", "{root}-other/file", "{root}/../file"])
def test_a_file_elsewhere_is_refused(run: Run, args: dict[str, Any], root: Path, place: str, tmp_path: Path) -> None:
    args["files"] = [{"path": place.format(root=root), "mode": "0444", "content": "x"}]
    answer = run(args).answer
    assert answer["failed"] is True
    assert "is not below" in answer["msg"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_one_content(run: Run, args: dict[str, Any]) -> None:
    args["files"] = [{"path": args["files"][0]["path"], "mode": "0444", "content": "x", "secret_content": SECRET}]
    assert run(args).answer["failed"] is True


# Whether the container is there


LABELS = {"fba.stack": "fba", "fba.spec": "0123456789abcdef"}


def inspected(status: str = "running", code: int = 0, **labels: str) -> dict[str, Any]:
    """What the engine says of a container that has labels of its own too."""
    return {"State": {"Status": status, "ExitCode": code}, "Config": {"Labels": {"maintainer": "somebody", **LABELS, **labels}}}


@pytest.mark.parametrize(
    ("about", "stands", "once"),
    [
        (inspected(), True, False),
        (inspected(**{"fba.spec": "other"}), False, False),
        (inspected("exited"), False, True),
        (inspected("exited", 1), False, False),
        (inspected("exited", **{"fba.spec": "other"}), False, False),
        (inspected("paused"), False, False),
        (inspected("restarting"), False, False),
        (inspected("created"), False, False),
        (None, False, False),
    ],
    ids=["as wanted", "of another spec", "ended", "failed", "ended, of another spec", "paused", "crashing", "never started", "not there"],
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_it_tells_whether_the_container_stands(
    run: Run, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch, about: Any, stands: bool, once: bool, check_mode: bool
) -> None:
    """For ever, and, the third value, as one that runs once."""
    monkeypatch.setattr(container_files, "look_up", {"/containers/fba_redis/json": about}.__getitem__)
    for runs_once, wanted in ((False, stands), (True, once)):
        answer = run({**args, "container": {"name": "fba_redis", "labels": LABELS, "once": runs_once}}, check_mode=check_mode).answer
        assert (answer["stands"], answer["container"]) == (wanted, about)


def test_a_container_that_lacks_a_label_does_not_stand(run: Run, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    about = inspected()
    del about["Config"]["Labels"]["fba.stack"]
    monkeypatch.setattr(container_files, "look_up", lambda _path: about)
    assert run({**args, "container": {"name": "fba_redis", "labels": LABELS}}).answer["stands"] is False


def test_an_engine_that_does_not_answer_is_no_answer(run: Run, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(path: str) -> None:
        raise container_files.EngineAway("timed out")

    monkeypatch.setattr(container_files, "look_up", away)
    asking = {**args, "container": {"name": "fba_migrate", "labels": LABELS, "once": True}}
    refused = run(asking).answer
    assert refused["failed"]
    assert refused["msg"] == "The Docker engine does not say whether there is a container fba_migrate: timed out"
    # On a bare host there is none to ask
    assert run(asking, check_mode=True).answer["stands"] is False


def test_no_container_is_asked_for_unless_it_is_named(run: Run, args: dict[str, Any]) -> None:
    assert "stands" not in run(args).answer


# A folder that some containers share, each seeing its part: the files of each are its user's


OTHER = 4343


@pytest.fixture
def owned(args: dict[str, Any]) -> dict[str, Any]:
    """The plain file is another user's, and a third file is root's."""
    args["files"][0]["owner"] = OTHER
    args["files"].append({"path": f"{args['root']}/host/key", "mode": "0400", "owner": 0, "secret_content": SECRET})
    return args


def test_each_file_can_have_an_owner_of_its_own(run: Run, owned: dict[str, Any], root: Path, tmp_path: Path) -> None:
    assert run(owned).answer["changed"] is True
    assert facts(root / "dir-etc-redis/redis.conf") == (0o444, OTHER, OTHER)
    # Root is an owner too, and not "none given"
    assert facts(root / "host/key") == (0o400, 0, 0)
    # The others are the container's
    assert facts(root / "dir-run-secrets/password") == (0o400, OWNER, OWNER)
    assert facts(root / "host") == facts(root / "dir-etc-redis") == (0o755, 0, 0)
    before = everything(tmp_path)
    assert run(owned).answer["changed"] is False
    assert everything(tmp_path) == before


def test_another_owner_of_a_file_is_a_change_of_that_file(run: Run, owned: dict[str, Any], root: Path) -> None:
    run(owned)
    owned["files"][0]["owner"] = OTHER + 1
    assert run(owned).answer["changed_files"] == [str(root / "dir-etc-redis/redis.conf")]
    assert facts(root / "dir-etc-redis/redis.conf") == (0o444, OTHER + 1, OTHER + 1)
    os.chown(root / "host/key", OWNER, -1)
    assert run(owned).answer["changed_files"] == [str(root / "host/key")]
    assert facts(root / "host/key") == (0o400, 0, 0)


# A container that runs takes over what has changed


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a command `docker`, which writes there what it is called with, and fails as long as there is a file `fails`."""
    folder = tmp_path / "engine"
    folder.mkdir()
    command = folder / "docker"
    command.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/called\n[ ! -e {folder}/fails ] || {{ echo "no such server" >&2; exit 3; }}\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def reloading(args: dict[str, Any]) -> dict[str, Any]:
    """With a container that is told."""
    return {**args, "reload": {"container": "fba_nginx", "argv": ["sh", "/opt/fba/reload"]}}


def test_the_container_takes_over_what_has_changed(run: Run, reloading: dict[str, Any], engine: Path) -> None:
    assert run(reloading).answer["changed"] is True
    assert (engine / "called").read_text().splitlines() == ["exec", "fba_nginx", "sh", "/opt/fba/reload"]

    (engine / "called").unlink()
    assert run(reloading).answer["changed"] is False
    assert not (engine / "called").exists()


def test_check_mode_has_nothing_taken_over(run: Run, reloading: dict[str, Any], engine: Path) -> None:
    assert run(reloading, check_mode=True).answer["changed"] is True
    assert not (engine / "called").exists()


def test_a_container_that_does_not_take_over_says_why(run: Run, reloading: dict[str, Any], engine: Path, root: Path) -> None:
    (engine / "fails").touch()
    answer = run(reloading).answer
    assert answer["failed"]
    assert answer["msg"] == f"fba_nginx has not taken over {', '.join(answer['changed_files'])}: no such server"
    assert answer["rc"] == 3
    # The file is written: the container reads it when it starts
    assert (root / "dir-etc-redis/redis.conf").read_text() == "appendonly yes\n"
