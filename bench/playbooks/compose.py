"""The stack's containers as a file of Docker Compose, so that the same ones can be started by what most people start them with."""

from collections.abc import Mapping
from typing import Any

NANO = 10**9


def _literal(value: Any) -> Any:
    """Return the same with every dollar sign doubled: Compose takes one for the begin of a variable."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_literal(each) for each in value]
    return value


def _service(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container, as `docker inspect` shows it, as a service of Compose."""
    config, host = about["Config"], about["HostConfig"]
    health = config.get("Healthcheck") or {}
    service: dict[str, Any] = {
        "image": config["Image"],
        "command": _literal(config["Cmd"]),
        "environment": _literal(config["Env"]),
        "hostname": config["Hostname"],
        "user": config["User"],
        "read_only": host["ReadonlyRootfs"],
        "cap_drop": host["CapDrop"],
        "cap_add": host["CapAdd"],
        "security_opt": host["SecurityOpt"],
        "init": host["Init"],
        "restart": host["RestartPolicy"]["Name"],
        "mem_limit": host["Memory"],
        "shm_size": host["ShmSize"],
        "stop_signal": config.get("StopSignal"),
        "stop_grace_period": f"{config['StopTimeout']}s",
        "extra_hosts": host["ExtraHosts"],
        "tmpfs": [f"{path}:{options}" for path, options in (host["Tmpfs"] or {}).items()],
        "volumes": [
            {"type": mount["Type"], "source": mount["Source"], "target": mount["Target"], "read_only": mount.get("ReadOnly", False)}
            for mount in host["Mounts"] or []
        ],
        "ports": [
            f"{binding['HostIp'] or '0.0.0.0'}:{binding['HostPort']}:{port}"
            for port, bindings in (host["PortBindings"] or {}).items()
            for binding in bindings
        ],
        # By the names that the others know it by; the containers of the stack are there still
        "networks": {"stack": {"aliases": [about["Name"].lstrip("/")]}},
    }
    if health:
        service["healthcheck"] = {
            "test": _literal(health["Test"]),
            "interval": f"{health['Interval'] // NANO}s",
            "timeout": f"{health['Timeout'] // NANO}s",
            "retries": health["Retries"],
            "start_period": f"{health['StartPeriod'] // NANO}s",
        }
    return {name: value for name, value in service.items() if value not in (None, "", [], {})}


def compose_file(containers: Mapping[str, Mapping[str, Any]], network: str) -> dict[str, Any]:
    """Return the file of Compose with these containers (name to what `docker inspect` says), in the stack's network and volumes."""
    services = {name: _service(about) for name, about in sorted(containers.items())}
    volumes = {mount["source"] for service in services.values() for mount in service.get("volumes", []) if mount["type"] == "volume"}
    return {
        "services": services,
        "networks": {"stack": {"external": True, "name": network}},
        "volumes": {volume: {"external": True} for volume in sorted(volumes)},
    }
