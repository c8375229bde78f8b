"""Folders as build inputs, and the image names that are made from them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template

from ansible_collections.fba.stack.plugins.action.build_context import write_archive
from ansible_collections.fba.stack.plugins.plugin_utils import tree
from ansible_collections.fba.stack.plugins.plugin_utils.tree import TreeError, build_trees, tree_files, tree_hash

from conftest import ROOT


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small source folder."""
    root = tmp_path / "source"
    for folder in ("package/sub", "zone", "assets", "middle"):
        (root / folder).mkdir(parents=True)
        (root / folder / "b.txt").write_text(folder)
    (root / "main.py").write_text("main")
    (root / "package" / "a.py").write_text("a")
    (root / "package" / "sub" / "b.py").write_text("b")
    (root / "link").symlink_to("main.py")
    (root / "folder_link").symlink_to("package")
    return root


def names(root: Path) -> list[str]:
    """What belongs to the folder."""
    return [relative.as_posix() for relative, _path in tree_files(root)]


def test_files_and_links_in_a_stable_order(source: Path) -> None:
    assert names(source) == [
        *["folder_link", "link", "main.py", "assets/b.txt", "middle/b.txt"],
        *["package/a.py", "package/sub/b.py", "package/sub/b.txt", "zone/b.txt"],
    ]


def test_what_no_image_needs_is_left_out(source: Path) -> None:
    before = names(source)
    for path in (".git/config", "package/__pycache__/a.cpython-313.pyc", "stray.pyc", "package/sub/stray.pyc"):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_text("x")
    assert names(source) == before


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("main.py", {"main.py"}),
        ("/main.py", {"main.py"}),
        ("*.py", {"main.py"}),
        ("**/*.py", {"main.py", "package/a.py", "package/sub/b.py"}),
        ("package", {"package/a.py", "package/sub/b.py", "package/sub/b.txt"}),
        ("package/", {"package/a.py", "package/sub/b.py", "package/sub/b.txt"}),
        ("package/**", {"package/a.py", "package/sub/b.py", "package/sub/b.txt"}),
        ("package/**/b.py", {"package/sub/b.py"}),
        ("**/sub", {"package/sub/b.py", "package/sub/b.txt"}),
        ("package/?.py", {"package/a.py"}),
        ("*link", {"link", "folder_link"}),
        ("sub", set()),
        ("b.py", set()),
        ("mainxpy", set()),
        ("# main.py", set()),
        ("", set()),
    ],
)
def test_dockerignore(source: Path, pattern: str, gone: set[str]) -> None:
    before = set(names(source))
    (source / ".dockerignore").write_text(f"\n  {pattern}  \n")
    assert before - set(names(source)) == gone


def test_exceptions_are_refused_where_they_stand(source: Path) -> None:
    (source / ".dockerignore").write_text("*.md\n!README.md\n")
    with pytest.raises(TreeError, match=r"\.dockerignore:2: exceptions \(!README\.md\)"):
        names(source)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="is not a folder"):
        names(tmp_path / "nothing")


def edit(path: str, text: str) -> Any:
    """A change of one file's content."""
    return lambda root: (root / path).write_text(text)


def relink(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("package/a.py")


def as_file(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").write_text("main.py")


@pytest.mark.parametrize(
    "change",
    [
        edit("package/sub/b.py", "B"),
        edit("new.py", ""),
        lambda root: (root / "main.py").unlink(),
        lambda root: (root / "main.py").rename(root / "other.py"),
        lambda root: (root / "main.py").chmod(0o755),
        relink,
        as_file,
    ],
    ids=["content", "new file", "removed", "renamed", "executable", "link elsewhere", "file instead of a link"],
)
def test_hash_changes_with(source: Path, change: Any) -> None:
    before = tree_hash({".": source})
    change(source)
    assert tree_hash({".": source}) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: os.utime(root / "main.py", (0, 0)),
        lambda root: (root / "main.py").chmod(0o600),
        lambda root: (root / "empty").mkdir(),
        edit("stray.pyc", "x"),
    ],
    ids=["times", "permissions", "empty folder", "ignored file"],
)
def test_hash_stays_with(source: Path, change: Any) -> None:
    before = tree_hash({".": source})
    change(source)
    assert tree_hash({".": source}) == before


def test_hash_knows_the_place_and_the_salt(source: Path) -> None:
    hashes = {
        tree_hash({".": source}),
        tree_hash({"source": source}),
        tree_hash({".": source}, {"A": 1, "B": 2}),
        tree_hash({".": source}, {"A": 1, "B": 3}),
    }
    assert len(hashes) == 4
    assert tree_hash({".": source}, {"A": 1, "B": 2}) == tree_hash({".": source}, {"B": 2, "A": 1})


def test_bytes_cannot_move_from_one_file_to_the_next(tmp_path: Path) -> None:
    """Contents are told apart by their lengths."""
    for folder, first, second in (("one", "ab", "c"), ("two", "a", "bc")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1").write_text(first)
        (tmp_path / folder / "2").write_text(second)
    assert tree_hash({".": tmp_path / "one"}) != tree_hash({".": tmp_path / "two"})


# The archive


def members(path: Path) -> list[tuple[Any, ...]]:
    """All that an archive says, in its order."""
    with tarfile.open(path) as archive:
        result = []
        for info in archive:
            handle = archive.extractfile(info) if info.isreg() else None
            content = handle.read() if handle else info.linkname.encode()
            result.append((info.name, info.type, oct(info.mode), info.uid, info.gid, info.uname, info.gname, info.mtime, content))
        return result


def test_archive_has_the_trees_at_their_places_and_the_files(source: Path, tmp_path: Path) -> None:
    (source / "main.py").chmod(0o700)
    write_archive(str(tmp_path / "a.tar.gz"), {"source": source, ".": source / "package"}, {"build/ca.pem": "certificate"})
    found = {name: (oct_mode, content) for name, _type, oct_mode, *_rest, content in members(tmp_path / "a.tar.gz")}
    assert found["source/main.py"] == ("0o755", b"main")
    assert found["a.py"] == ("0o644", b"a")
    assert found["sub/b.py"] == ("0o644", b"b")
    assert found["source/link"][1] == b"main.py"
    assert found["build/ca.pem"] == ("0o644", b"certificate")


def test_archive_says_nothing_of_times_and_owners(source: Path, tmp_path: Path) -> None:
    write_archive(str(tmp_path / "a.tar.gz"), {".": source}, {"x": "y"})
    before = members(tmp_path / "a.tar.gz")
    for path in source.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o640)
        if os.getuid() == 0:
            os.chown(path, 4242, 4242)
    write_archive(str(tmp_path / "b.tar.gz"), {".": source}, {"x": "y"})
    assert members(tmp_path / "b.tar.gz") == before


# The names


def built_image(build: dict[str, Any]) -> str:
    """The lookup's answer."""
    variables = {"inventory_hostname": "host", "build": build}
    lookup = lookup_loader.get("fba.stack.built_image", templar=Templar(variables=variables))
    (name,) = lookup.run(["build"], variables=variables)
    return str(name)


def test_an_image_is_named_by_what_it_is_built_from(source: Path) -> None:
    build = {"name": "fba/app", "dockerfile": "app", "trees": {"source": str(source), "build/uv": "recipe:uv"}, "args": {"WORKDIR": "/app"}}
    name = built_image(build)
    assert name.startswith("fba/app:")
    assert built_image(build) == name
    assert built_image({**build, "args": {"WORKDIR": "/srv"}}) != name
    assert built_image({**build, "dockerfile": "flower"}) != name
    (source / "main.py").write_text("changed")
    assert built_image(build) != name


def test_a_description_may_have_templates_and_must_be_there(source: Path) -> None:
    build = {"name": "fba/app", "dockerfile": "app", "trees": {"source": str(source)}, "args": {"WORKDIR": "/app"}}
    assert built_image({**build, "args": {"WORKDIR": trust_as_template("/{{ 'app' }}")}}) == built_image(build)
    with pytest.raises(AnsibleLookupError, match="There is no variable 'nothing'"):
        lookup_loader.get("fba.stack.built_image", templar=Templar()).run(["nothing"], variables={})


def test_recipes_are_marked_and_everything_else_is_a_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    trees = build_trees({"dockerfile": "app", "trees": {"source": str(source), "near": "uv", "home": "~/app", "build/uv": "recipe:uv"}})
    assert trees == {
        "source": source,
        "near": Path("uv"),
        "home": Path("/home/somebody/app"),
        "build/uv": ROOT / "roles/images/files/uv",
        ".": ROOT / "roles/images/files/app",
    }


def test_a_source_that_is_not_there_is_told_by_its_variable(tmp_path: Path) -> None:
    build = {"name": "fba/app", "dockerfile": "app", "trees": {"source": str(tmp_path / "nothing")}, "args": {}}
    with pytest.raises(AnsibleLookupError, match=r"fba_app_source: .*nothing is not a folder"):
        built_image(build)


def service_image(service: str, **options: str) -> str:
    """The lookup's answer."""
    defaults = {"source": "distro", "registry": "docker.io/library", "version": "8.0", "epoch": "1"}
    (name,) = lookup_loader.get("fba.stack.service_image").run([service], **{**defaults, **options})
    return str(name)


def test_official_images_are_pinned() -> None:
    assert service_image("redis", source="registry") == "docker.io/library/redis:8.0"
    assert (
        service_image("redis", source="registry", registry="mirror.example.org/library", epoch="2")
        == "mirror.example.org/library/redis:8.0"
    )


def test_images_from_packages_follow_recipe_and_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for recipe in ("base", "redis", "nginx"):
        (tmp_path / "distro" / recipe).mkdir(parents=True)
        (tmp_path / "distro" / recipe / "Dockerfile").write_text(f"FROM {recipe}")
    lookup = type(lookup_loader.get("fba.stack.service_image"))
    monkeypatch.setitem(lookup.run.__globals__, "RECIPES", tmp_path)
    before = service_image("redis")
    assert before.startswith("fba/redis:8.0-")
    assert service_image("redis", epoch="2") != before
    (tmp_path / "distro/nginx/Dockerfile").write_text("changed")
    assert service_image("redis") == before
    (tmp_path / "distro/base/Dockerfile").write_text("changed")
    assert service_image("redis") != before


def test_the_recipes_are_where_the_lookups_look() -> None:
    assert (tree.RECIPES / "app" / "Dockerfile").is_file()
    assert {path.parent.name for path in tree.RECIPES.glob("*/requirements.lock")} == {"flower", "supervisor", "uv"}
