"""The roles' variables: defaults and argument specs say the same, and no role reaches into another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@cache
def read(role: str, *path: str) -> Any:
    """A YAML file of a role, or nothing."""
    file = ROOT.joinpath("roles", role, *path)
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file.exists() else {}


def entry_points(role: str) -> dict[str, Any]:
    """What a role can be asked for."""
    return dict(read(role, "meta", "argument_specs.yml")["argument_specs"])


def options(role: str) -> dict[str, Any]:
    """The options of all of a role's entry points."""
    return {name: option for entry in entry_points(role).values() for name, option in entry.get("options", {}).items()}


def defaults(role: str) -> dict[str, Any]:
    """The public variables of a role."""
    return {name: value for name, value in read(role, "defaults", "main.yml").items() if not name.startswith("__")}


def parameters(role: str) -> set[str]:
    """The variables that whoever asks a role for something has to give; they have no default."""
    return {name for name, option in options(role).items() if option.get("required")}


def generated() -> set[str]:
    """The secrets, which are made where nobody gives them."""
    return {entry["name"] for entry in read("secrets", "vars", "main.yml")["__secrets_wanted"]}


def test_secrets_are_kept_out_of_outputs() -> None:
    given = {"fba_backup_ssh_key", "fba_backup_s3_secret_key"}
    assert {name for name, option in options("common").items() if option.get("no_log")} == generated() | given


def all_options(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option, those inside options too."""
    for name, option in tree.items():
        yield f"{path}{name}", option
        yield from all_options(option.get("options", {}), f"{path}{name}.")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_specs(role: str) -> None:
    assert entry_points(role)
    for name, entry in entry_points(role).items():
        assert entry.get("short_description"), name


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks(role: str) -> None:
    tasks = {path.stem for path in (ROOT / "roles" / role / "tasks").glob("*.yml")}
    # common has none: its variables are checked once, by precheck
    assert entry_points(role).keys() - {"shared"} <= tasks


def asked_for() -> list[tuple[Path, str, str, set[str]]]:
    """Every place where a role is included for something else than what it mainly does: file, role, entry point, variables given."""
    found = []

    def look(path: Path, tree: Any) -> None:
        if isinstance(tree, list):
            for entry in tree:
                look(path, entry)
        elif isinstance(tree, dict):
            for name, value in tree.items():
                if name in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
                    given = tree.get("vars", {})
                    role = str(value["name"]).removeprefix("fba.stack.")
                    # Who asks for a role by a variable is asked for it with that variable
                    if "{{" not in role:
                        found.append((path, role, str(value.get("tasks_from", "main")), set(given)))
                    if "release_role" in given:
                        entry = str(given.get("release_entry", "main"))
                        found.append((path, str(given["release_role"]).removeprefix("fba.stack."), entry, set()))
                    if "container_traffic" in given:
                        traffic = given["container_traffic"]
                        found.append((path, str(traffic["role"]).removeprefix("fba.stack."), str(traffic["entry"]), set()))
                look(path, value)

    for path in (*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")):
        look(path, yaml.safe_load(path.read_text(encoding="utf-8")))
    return found


def test_what_a_role_is_asked_for_is_an_entry_point_and_gets_its_parameters() -> None:
    """Ansible checks the parameters of an entry point that it knows, and takes any other file without a look."""
    asked = asked_for()
    assert len(asked) > 20
    for path, role, entry, given in asked:
        assert entry in entry_points(role), f"{path.relative_to(ROOT)}: {role}/{entry}"
        needed = {name for name, option in entry_points(role)[entry].get("options", {}).items() if option.get("required")}
        assert needed <= given, f"{path.relative_to(ROOT)}: {role}/{entry}"
        unknown = {name for name in given if name.startswith(f"{role}_")} - options(role).keys()
        assert unknown == set(), f"{path.relative_to(ROOT)}: {role}/{entry}"


def container_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every spec that a role hands to the role `container`, as it is written: where, and the spec."""

    def look(place: str, tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(tree, list):
            for entry in tree:
                yield from look(place, entry)
        elif isinstance(tree, dict):
            for name, value in tree.items():
                if isinstance(value, dict) and (name == "container_spec" or {"service", "image", "user"} <= value.keys()):
                    yield f"{place}: {name}", value
                else:
                    yield from look(place, value)

    for path in (*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/vars/*.yml")):
        yield from look(str(path.relative_to(ROOT)), yaml.safe_load(path.read_text(encoding="utf-8")))


def unknown_keys(given: Any, known: dict[str, Any]) -> set[str]:
    """Return the keys of a dictionary, and of those in it, that its options do not have. What is a template is left out."""
    found = {name for name in given if name not in known}
    for name in given.keys() - found:
        options = known[name].get("options")
        parts = given[name] if isinstance(given[name], list) else [given[name]]
        for part in parts if options else []:
            if isinstance(part, dict):
                found |= {f"{name}.{each}" for each in unknown_keys(part, options)}
    return found


def test_a_container_is_described_by_what_there_is() -> None:
    """The collection's own roles are not checked when they run: it takes a tenth of a second for each container."""
    found = dict(container_specs())
    roles = {place.split("/")[1] for place in found}
    assert roles >= {"postgres", "redis", "rabbitmq", "server", "worker", "beat", "flower", "nginx", "images"}
    known = entry_points("container")["main"]["options"]["container_spec"]["options"]
    required = {name for name, option in known.items() if option.get("required")}
    for place, spec in found.items():
        assert unknown_keys(spec, known) == set(), place
        # One that runs to its end has no health check; names are given where replicas are counted
        assert required - {"health", "name"} <= spec.keys(), place


def test_a_key_that_is_none_is_found() -> None:
    known = {"name": {}, "files": {"options": {"path": {}}}, "health": {"options": {"test": {}}}}
    given = {"name": "one", "nmae": "two", "files": [{"path": "/a", "mod": "0"}, "{{ template }}"], "health": {"tets": []}}
    assert unknown_keys(given, known) == {"nmae", "files.mod", "health.tets"}


def test_every_entry_point_is_asked_for() -> None:
    asked = {(role, entry) for _path, role, entry, _given in asked_for()}
    listed = {
        name.removeprefix("fba.stack.")
        for path in ROOT.glob("playbooks/**/*.yml")
        for play in yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in play.get("roles", [])
    }
    assert {(role, entry) for role in ROLES for entry in entry_points(role)} - asked - {(role, "main") for role in listed} == {
        ("common", "shared")
    }


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_name_the_same_variables(role: str) -> None:
    assert defaults(role).keys() == options(role).keys() - parameters(role) - generated()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_have_the_same_values(role: str) -> None:
    for entry_name, entry in entry_points(role).items():
        for name, option in entry.get("options", {}).items():
            if option.get("required") or name in generated():
                assert "default" not in option, name
            else:
                assert (entry_name, name, option.get("default")) == (entry_name, name, defaults(role)[name])


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described_and_typed(role: str) -> None:
    for name, option in all_options(options(role)):
        assert option.get("description"), name
        assert option.get("type") in {"str", "int", "float", "bool", "list", "dict", "path"}, name
        if option["type"] == "list":
            assert option.get("elements"), f"elements of {name}"


@pytest.mark.parametrize("role", ROLES)
def test_variables_have_their_roles_prefix(role: str) -> None:
    prefix = "fba_" if role == "common" else f"{role}_"
    assert [name for name in options(role) if not name.startswith(prefix)] == []
    internal = {*read(role, "defaults", "main.yml"), *read(role, "vars", "main.yml")} - defaults(role).keys()
    assert [name for name in internal if not name.startswith(f"__{prefix}")] == []


def known_variables() -> dict[str, str]:
    """Every variable that a role defines, to the role."""
    known = {}
    for role in ROLES:
        for name in (*options(role), *read(role, "defaults", "main.yml"), *read(role, "vars", "main.yml")):
            known[name] = role
    return known


def yaml_and_templates(role: str) -> Iterator[Path]:
    """The files of a role that ansible evaluates."""
    for folder in ("tasks", "handlers", "templates", "defaults", "vars"):
        yield from (ROOT / "roles" / role / folder).rglob("*.*")


# Common's variables are for all; container_* are the parameters of the role that runs containers
SHARED = {"common", "container"}


@pytest.mark.parametrize("role", ROLES)
def test_no_role_names_another_ones_variables(role: str) -> None:
    known = known_variables()
    # Whoever asks a role for something gives it its parameters
    given = {(path, name) for path, asked, _entry, names in asked_for() for name in names if known.get(name) == asked}
    wrong = []
    for path in yaml_and_templates(role):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            # Comments and names of tasks may speak of them
            code = re.sub(r"(^|\s)#.*$", "", line)
            for name in re.findall(r"\b[a-z_][a-z0-9_]*\b", code):
                if name in known and known[name] not in {role, *SHARED} and (path, name) not in given:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {name}")
                # Container's internals are its own
                if name.startswith("__container_") and role != "container":
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {name}")
    assert wrong == []


@cache
def mentioned() -> set[str]:
    """Every name that the roles and the checks before a deployment use: what stands at the beginning of a line defines one."""
    texts = [re.sub(r"(?m)^\w+:", "", path.read_text(encoding="utf-8")) for role in ROLES for path in yaml_and_templates(role)]
    others = [*(ROOT / "plugins" / "plugin_utils").glob("*.py"), *ROOT.glob("playbooks/**/*.yml")]
    texts += [path.read_text(encoding="utf-8") for path in others]
    return {name for text in texts for name in re.findall(r"\w+", text)}


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_used(role: str) -> None:
    assert sorted(options(role).keys() - mentioned()) == []


def test_services_stand_on_common() -> None:
    """Else a role's tasks would lack the shared variables' defaults."""
    for role in set(ROLES) - {"common", "precheck"}:
        assert {"role": "fba.stack.common"} in read(role, "meta", "main.yml")["dependencies"], role
