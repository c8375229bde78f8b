"""The variants of the default application that releases are tried with: each change fits the application as it is."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.plugin_utils.tree import tree_hash

from conftest import ROOT

APP = ROOT / "app"
PLACE = ROOT / "molecule" / "variants.py"

_spec = importlib.util.spec_from_file_location("variants", PLACE)
assert _spec and _spec.loader
variants: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(variants)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """make(*changes): the folder of a variant of the application."""
    return lambda *changes: variants.make_variant(APP, tmp_path / "variant", *changes)


def modules(root: Path) -> dict[str, ast.Module]:
    """Every module of a source, parsed."""
    return {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for folder in ("fba_app", "migrations")
        for path in (root / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }


def differing(one: Path, other: Path) -> set[str]:
    """The modules in which the meaning of two sources differs."""
    first, second = ({name: ast.dump(tree) for name, tree in modules(root).items()} for root in (one, other))
    return {name for name in first | second if first.get(name) != second.get(name)}


def test_without_a_change_it_is_the_same_release(make: Any) -> None:
    assert tree_hash({".": make()}) == tree_hash({".": APP})


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        (variants.mark(7), {"fba_app/main.py"}),
        (variants.adds_a_kind(), {"fba_app/kinds/__init__.py", "fba_app/kinds/greet.py"}),
        (variants.records_effects(), {"fba_app/kinds/__init__.py", "fba_app/kinds/effect.py"}),
        (variants.changes_a_signature(), {"fba_app/kinds/sleep.py"}),
        (variants.compatible_migration(), {"migrations/versions/0003_note.py"}),
        (variants.incompatible_migration(), {"migrations/versions/0003_greetings.py"}),
        (variants.failing_migration(), {"migrations/versions/0003_half_done.py"}),
        (variants.crashes_at_start(), {"fba_app/main.py"}),
        (variants.never_ready(), {"fba_app/health/routes.py"}),
        (variants.answers_500(), {"fba_app/tasks/routes.py", "fba_app/web/tasks.py"}),
        (variants.worker_crashes_at_start(), {"fba_app/tasks/runner.py"}),
    ],
    ids=lambda value: value.__qualname__.partition(".")[0] if callable(value) else "",
)
def test_each_change_finds_its_place_and_touches_nothing_else(make: Any, change: Any, touched: set[str]) -> None:
    made = make(change)
    assert differing(APP, made) == touched
    assert tree_hash({".": made}) != tree_hash({".": APP})
    # As an interpreter takes it
    for name in touched:
        compile((made / name).read_text(encoding="utf-8"), name, "exec")


def test_a_change_that_finds_no_place_fails(make: Any, tmp_path: Path) -> None:
    with pytest.raises(variants.VariantError, match=re.escape("fba_app/main.py has 0 places, not one")):
        make(lambda root: (root / "fba_app" / "main.py").write_text("app = None"), variants.mark(1))
    with pytest.raises(variants.VariantError, match=re.escape("kinds/greet.py is there already")):
        variants.make_variant(APP, tmp_path / "other", variants.adds_a_kind(), variants.adds_a_kind())


def test_the_mark_is_the_version(make: Any) -> None:
    text = (make(variants.mark(1), variants.mark(23)) / "fba_app" / "main.py").read_text(encoding="utf-8")
    assert text.count('version="1.0.23"') == 1


def test_the_new_kind_is_imported_with_the_others(make: Any) -> None:
    tree = modules(make(variants.adds_a_kind()))["fba_app/kinds/__init__.py"]
    imported = [name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert "greet" in imported and imported == sorted(imported)


def test_an_argument_is_added_to_sleep(make: Any) -> None:
    tree = modules(make(variants.changes_a_signature()))["fba_app/kinds/sleep.py"]
    (arguments,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "SleepArguments"]
    fields = [node.target.id for node in arguments.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    assert fields == ["duration", "label"]


def test_migrations_follow_each_other(make: Any) -> None:
    made = make(variants.compatible_migration(), variants.incompatible_migration("a column is gone"))
    texts = {path.name: path.read_text(encoding="utf-8") for path in (made / "migrations" / "versions").glob("*.py")}
    assert 'revision = "0003_note"\ndown_revision = "0002"\n' in texts["0003_note.py"]
    marked = '\n# fba: not compatible: a column is gone\nrevision = "0004_greetings"\ndown_revision = "0003_note"\n'
    assert marked in texts["0004_greetings.py"]
    assert not [name for name, text in texts.items() if "not compatible" in text and name != "0004_greetings.py"]
