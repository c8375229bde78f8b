# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens to a container, and how containers that serve are replaced while others go on serving."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.fba.stack.plugins.filter.container import container_plan


def container_plans(
    specs: list[dict[str, Any]], key: str, context: dict[str, Any], folders: list[str], tools: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the plans of several containers, as the filter container_plan does of one; `folders` are those of all containers."""
    config, logs, tls = folders
    return [container_plan(spec, key, context, (f"{config}/{spec['name']}", f"{logs}/{spec['name']}", tls), tools) for spec in specs]


def container_verdict(plan: dict[str, Any], before: dict[str, Any] | None, changed_files: Iterable[str] = ()) -> dict[str, str]:
    """Return what a run does to a container, and why: `container`, `service`, `what`, `why`, and what it then is: `image`, `spec`.

    `before` is what fba.stack.host_state says of it, None where there is none; `changed_files` are the paths on the host that
    fba.stack.container_files has exchanged. `what` is `created`, `run` (once, to its end), `replaced`, `started`, `reloaded` or `left`.
    """
    changed = sorted(changed_files)
    names = ", ".join(dict.fromkeys(PurePosixPath(path).name for path in changed))
    reloaded = [path for path in changed if path in plan["reload_files"]]
    if plan["once"]:
        what, why = "run", "not yet for this image and these settings"
    elif before is None:
        what, why = "created", "it is not there"
    elif before["spec"] != plan["hash"]:
        what = "replaced"
        why = f"{before['image']} is now {plan['image']}" if before["image"] != plan["image"] else names or "its settings are others"
    elif before["state"] != "running":
        what, why = "started", f"it is {before['state']}"
    elif reloaded and plan["reload"]:
        what, why = "reloaded", ", ".join(dict.fromkeys(PurePosixPath(path).name for path in reloaded))
    else:
        what, why = "left", f"for its next start: {names}" if changed else ""
    after = {"image": plan["image"], "spec": plan["hash"]}
    return {"container": plan["name"], "service": plan["service"], "what": what, "why": why, **after}


def _moved(value: Any, roots: list[tuple[str, str]]) -> Any:
    """Return a value in which every path below an old root is below the new one."""
    if isinstance(value, dict):
        return {name: _moved(each, roots) for name, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, roots) for each in value]
    if isinstance(value, str):
        for old, new in roots:
            if value == old or value.startswith(f"{old}/"):
                return new + value[len(old) :]
    return value


def spare_plan(plan: dict[str, Any], name: str, address: str, ports: list[str]) -> dict[str, Any]:
    """Return the plan of one more container like another, under a name, a fixed address and published ports of its own.

    Its files and logs lie in folders of its own beside the other's; what it runs, and its hash, are the same.
    """
    root = str(PurePosixPath(plan["root"]).with_name(name))
    roots = [(plan["root"], root)]
    if plan["log_dir"]:
        roots.append((plan["log_dir"], str(PurePosixPath(plan["log_dir"]).with_name(name))))
    files = [{**entry, "path": _moved(entry["path"], roots)} for entry in plan["files"]]
    # Of the content of files nothing is taken for a path
    rest = _moved({key: value for key, value in plan.items() if key not in ("files", "options")}, roots)
    options = {**plan["options"], "mounts": _moved(plan["options"]["mounts"], roots), "address": address, "ports": ports}
    return {**rest, "name": name, "files": files, "options": options, "spare": True}


def container_roll(
    plans: list[dict[str, Any]],
    found: list[dict[str, Any]],
    spare: dict[str, Any],
    start_first: bool = True,
    spare_stays: bool = False,
) -> dict[str, Any]:
    """Return how a service's containers on this host become what their plans say, without fewer of them serving than before.

    `found` are those of the service as docker_host_info lists them, in whatever state. `spare` has `name`, `address` and `ports` of one
    that serves while others are replaced. Without `start_first` each is stopped before its successor starts. With `spare_stays`, one that
    is there already does, whatever it is: where a release goes back, it is the new one that has passed its trial.

    - `plain`: plans that nothing has to make room for: they are as they should be, or do not run
    - `replaced`: those that run and are others, in their order: `plan`, and `number`, from 0
    - `spare`: the plan of the one that has to be put into service first, None where none has to
    - `stale`: whether a spare that was left behind has to be taken out of service for that
    - `surplus`: names of those that no plan wants, and a spare that was left behind
    """
    running = {each["Names"][0].lstrip("/"): each for each in found}
    wanted = {plan["name"] for plan in plans}
    replaced: list[dict[str, Any]] = [
        {"plan": plan, "number": number}
        for number, plan in enumerate(plans)
        if start_first
        and plan["name"] in running
        and running[plan["name"]]["State"] == "running"
        and running[plan["name"]]["Labels"].get("fba.spec") != plan["hash"]
    ]
    names = {each["plan"]["name"] for each in replaced}
    left = running.get(spare["name"])
    serves = bool(left and left["State"] == "running" and spare_stays)
    following = spare_plan(replaced[0]["plan"], spare["name"], spare["address"], spare["ports"]) if replaced and not serves else None
    return {
        "plain": [plan for plan in plans if plan["name"] not in names],
        "replaced": replaced,
        "spare": following,
        "stale": bool(left and following and left["Labels"].get("fba.spec") != following["hash"]),
        "surplus": sorted(name for name in running if name not in wanted),
    }


class FilterModule:
    """Filters on what happens to containers."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"container_plans": container_plans, "container_roll": container_roll, "container_verdict": container_verdict}
