"""The application contract: settings, folders, replicas and pools."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.filter.application import (
    directory_volumes,
    internal_upload_path,
    renamed,
    server_replicas,
    shell_lines,
    source_binds,
    worker_names,
    worker_programs,
)


def test_settings_get_the_applications_names_and_others_are_left_out() -> None:
    settings = {"db_host": "fba_postgres", "db_port": 5432, "redis_host": "fba_redis"}
    assert renamed(settings, {"db_host": "PGHOST", "db_port": "", "unknown": "X"}) == {"PGHOST": "fba_postgres"}


def test_uploads_are_sent_from_the_first_internal_path() -> None:
    routes: list[dict[str, Any]] = [
        {"path": "/", "to": "server"},
        {"path": "/media/", "to": "upload"},
        {"path": "/open/", "to": "upload", "internal": False},
        {"path": "/_one/", "to": "upload", "internal": True},
        {"path": "/_two/", "to": "upload", "internal": True},
    ]
    assert internal_upload_path(routes) == "/_one/"
    assert internal_upload_path(routes[:3]) is None


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The source of an application."""
    root = tmp_path / "source"
    for name in ("shop/static/upload/a.png", "shop/static/logo.svg", "shop/main.py", "tests/test_shop.py", "upload/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name in ("alembic.ini", ".env"):
        (root / name).touch()
    (root / ".dockerignore").write_text(".dockerignore\ntests\n")
    return root


@pytest.mark.parametrize(
    ("kept", "mounted"),
    [
        # As by default: settings and uploads at the top, and they stay what they are
        (["/app/.env", "/app/upload"], {"alembic.ini": "/app/alembic.ini", "shop": "/app/shop"}),
        # Nothing of the image is needed: one mount, and files that come later are seen too
        (["/run/settings/.env", "/srv/upload", "/application/x"], {".": "/app"}),
        # A folder further down; what the source does not have is no entry of it
        (
            ["/app/.env", "/app/shop/static/upload/", "/app/shop/log"],
            {
                "alembic.ini": "/app/alembic.ini",
                "shop/main.py": "/app/shop/main.py",
                "shop/static/logo.svg": "/app/shop/static/logo.svg",
                "upload": "/app/upload",
            },
        ),
    ],
)
def test_a_source_is_mounted_around_what_has_mounts_of_its_own(source: Path, kept: list[str], mounted: dict[str, str]) -> None:
    assert source_binds(str(source), "/app", kept) == {str(source / name): target for name, target in mounted.items()}


def test_a_source_is_mounted_by_its_real_path(source: Path) -> None:
    """Docker resolves neither dots nor links."""
    (source / "link").symlink_to(source)
    assert source_binds(f"{source}/shop/../link", "/app", []) == {str(source): "/app"}


def test_folders_become_volumes_of_the_stack() -> None:
    assert directory_volumes(["/app/data/", "/app/media"], "two") == {"two_app_app_data": "/app/data/", "two_app_app_media": "/app/media"}


def test_commands_run_in_order_word_by_word_until_one_fails() -> None:
    commands = [["echo", "two  words", "$HOME"], ["echo", "it's"], ["false"], ["echo", "never"]]
    done = subprocess.run(["sh", "-euc", shell_lines(commands)], capture_output=True, text=True, check=False)
    assert done.stdout == "two  words $HOME\nit's\n"
    assert done.returncode == 1


def test_replicas_have_names_addresses_and_ports_of_their_own() -> None:
    replicas = server_replicas(["10.0.0.11", "10.0.0.12"], "fba", 9001, 18001)
    assert [(replica["name"], replica["address"]) for replica in replicas] == [("fba_server_1", "10.0.0.11"), ("fba_server_2", "10.0.0.12")]
    assert [port for replica in replicas for port in replica["ports"]] == ["127.0.0.1:18001:9001", "127.0.0.1:18002:9001"]


def test_without_a_port_nothing_is_published() -> None:
    assert server_replicas(["10.0.0.11"], "fba", 8001, 0)[0]["ports"] == []
    # A port alone is not offered to everybody
    assert server_replicas(["10.0.0.11"], "fba", 8001, 0, "", 8001)[0]["ports"] == []


@pytest.mark.parametrize(
    ("publish_port", "ports"),
    [
        (0, [["192.0.2.7:8101:8001"], ["192.0.2.7:8102:8001"]]),
        (18001, [["127.0.0.1:18001:8001", "192.0.2.7:8101:8001"], ["127.0.0.1:18002:8001", "192.0.2.7:8102:8001"]]),
        # The same number twice is no conflict: the addresses differ
        (8101, [["127.0.0.1:8101:8001", "192.0.2.7:8101:8001"], ["127.0.0.1:8102:8001", "192.0.2.7:8102:8001"]]),
    ],
)
def test_replicas_are_published_for_an_nginx_on_another_host(publish_port: int, ports: list[list[str]]) -> None:
    replicas = server_replicas(["10.0.0.11", "10.0.0.12"], "fba", 8001, publish_port, "192.0.2.7", 8101)
    assert [replica["ports"] for replica in replicas] == ports


@pytest.mark.parametrize(
    ("count", "names"),
    [(1, ["fba_celery_worker"]), ("3", ["fba_celery_worker", "fba_celery_worker_2", "fba_celery_worker_3"])],
)
def test_the_first_worker_has_no_number(count: int | str, names: list[str]) -> None:
    assert worker_names("fba", count) == names  # type: ignore[arg-type]


def option(command: list[str], name: str) -> str:
    """The word after an option."""
    return command[command.index(name) + 1]


def test_every_pool_is_a_program() -> None:
    pools = [
        {"name": "io", "pool": "gevent", "concurrency": 1000, "queues": ["io", "mail"]},
        {"name": "cpu", "pool": "prefork", "queues": ["cpu"], "max_memory": 200000},
    ]
    io, cpu = worker_programs(pools, "fba_app.celery", "info", 600, 4)
    assert (io["name"], cpu["name"]) == ("worker-io", "worker-cpu")
    assert (option(io["command"], "-P"), option(io["command"], "-c"), option(io["command"], "-Q")) == ("gevent", "1000", "io,mail")
    assert option(io["command"], "-A") == "fba_app.celery"
    # A child per core, where nothing else is said
    assert option(cpu["command"], "-c") == "4"
    assert "--max-memory-per-child=200000" in cpu["command"]
    assert not [word for word in io["command"] if word.startswith("--max-memory")]
    assert {"--time-limit=600", "--loglevel=info"} <= set(io["command"]) & set(cpu["command"])
    assert io["command"][0] == cpu["command"][0] == "python3"
    # run.py wants the pool's name before the command
    assert option(cpu["command"], "/opt/worker/run.py") == "cpu"


def test_a_log_can_leave_out_what_went_well() -> None:
    (program,) = worker_programs([{"name": "io", "pool": "solo", "queues": ["io"]}], "fba_app.celery", "info", 600, 4, log_tasks=False)
    assert program["command"][2:5] == ["io", "--quiet-tasks", "celery"]


def test_a_pool_with_several_processes_is_several_programs_and_can_give_way() -> None:
    pool = {"name": "io", "pool": "gevent", "concurrency": 500, "processes": 3, "nice": 5, "queues": ["io"]}
    programs = worker_programs([pool], "fba_app.celery", "info", 600, 4)
    assert [program["name"] for program in programs] == ["worker-io", "worker-io-2", "worker-io-3"]
    assert [option(program["command"], "/opt/worker/run.py") for program in programs] == ["io", "io-2", "io-3"]
    assert {option(program["command"], "-c") for program in programs} == {"500"}
    assert all(program["command"][:3] == ["nice", "-n", "5"] for program in programs)
