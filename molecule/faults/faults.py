"""The faults that a stack has to survive, each from its begin to its end. What comes after the end is the stack's own business.

A fault is a function of the fleet. It returns when it is over: what was killed is dead, what was frozen thaws, what was cut is whole again.
Nothing here starts a container or a program again that was killed; Docker, supervisord and the health checks do that.
"""

import json
import time

WORKER, SERVER, BEAT = "fba_celery_worker", "fba_server_1", "fba_celery_beat"
APPLICATION = "fba_app.celery"


def kill_container(stack, name):
    """Kill a container's first process, and everything in it with that, as the kernel would for want of memory.

    Not by `docker kill`: after that, Docker takes the container for one that is meant to be stopped.
    """
    stack.host.check_output(f"kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {name})")


def freeze(stack, name, seconds):
    """Stop the clock of a container for some seconds."""
    stack.host.check_output(f"docker pause {name} && sleep {seconds} && docker unpause {name}")


def leading_beat(fleet):
    """Return the stack of the host whose beat runs, by the session that holds the lock."""
    session = fleet["data"].sql("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'singleton:beat@%' LIMIT 1")
    return fleet[session.rpartition("@fba-")[2]]


# The worker


def worker_process(fleet):
    """A pool's process is killed."""
    work1 = fleet["work1"]
    work1.kill_program(WORKER, work1.supervised_pid(WORKER, "worker-io"))


def pool_child(fleet):
    """The processes that run what computes are killed, most likely in the middle of a task."""
    for stack in fleet.of("worker"):
        parent = stack.supervised_pid(WORKER, "worker-cpu")
        assert parent, f"worker-cpu does not run on {stack.name}"
        # pkill is not in the image
        script = f"""
import os, pathlib
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if f"PPid:\\t{parent}\\n" in (folder / "status").read_text():
            os.kill(int(folder.name), 9)
    except (FileNotFoundError, ProcessLookupError):
        pass
"""
        stack.host.check_output(f"docker exec -i {WORKER} python3 - <<'END'\n{script}\nEND")


def worker_container(fleet):
    """A worker's container is killed."""
    kill_container(fleet["work2"], WORKER)


def deaf_worker(fleet):
    """A pool is alive and answers, and consumes nothing any more."""
    work1 = fleet["work1"]
    node = work1.host.check_output(f"docker exec {WORKER} cat /tmp/io.node")
    work1.host.check_output(f"docker exec {WORKER} celery -A {APPLICATION} control --destination {node} --timeout 10 cancel_consumer io")


def wrong_clock(fleet, seconds=30):
    """A pool's processes run ten minutes ahead of everybody else."""
    work2 = fleet["work2"]
    supervisorctl = f"docker exec {WORKER} /opt/supervisor/bin/supervisorctl -c /etc/supervisor/supervisord.conf"
    # From the host, which has the same release of Debian as the image
    work2.host.check_output(
        "apt-get install --yes --no-install-recommends libfaketime 2>&1 || (apt-get update && apt-get install --yes libfaketime) 2>&1"
    )
    library = work2.host.check_output("dpkg -L libfaketime | grep 'libfaketime.so.1$'")
    work2.host.check_output(f"docker exec -i {WORKER} sh -c 'cat > /tmp/libfaketime.so.1' < {library}")
    command = work2.host.check_output(
        f'docker exec {WORKER} python3 -c "import configparser; c = configparser.RawConfigParser(); '
        "c.read('/etc/supervisor/supervisord.conf'); print(c['program:worker-io']['command'].replace('%%', '%'))\""
    )
    work2.host.check_output(f"{supervisorctl} stop programs:worker-io")
    environment = "-e LD_PRELOAD=/tmp/libfaketime.so.1 -e FAKETIME=+600s -e FAKETIME_DONT_FAKE_MONOTONIC=1"
    work2.host.check_output(f"docker exec --detach {environment} {WORKER} sh -c 'echo $$ > /tmp/ahead.pid; exec {command}'")
    time.sleep(seconds)
    work2.host.check_output(f"docker exec {WORKER} sh -c 'kill -TERM $(cat /tmp/ahead.pid)'")
    work2.host.check_output(f"{supervisorctl} start programs:worker-io")


def full_disk(fleet, seconds=20):
    """What a worker writes to is full."""
    work2 = fleet["work2"]
    work2.host.check_output(f"docker exec {WORKER} sh -c 'cat /dev/zero > /tmp/full 2> /dev/null; test -s /tmp/full'")
    time.sleep(seconds)
    work2.host.check_output(f"docker exec {WORKER} rm /tmp/full")


# The broker


def broker_killed(fleet):
    """RabbitMQ is killed."""
    kill_container(fleet["data"], "fba_rabbitmq")


def broker_restarted(fleet):
    """RabbitMQ is stopped in peace, and started."""
    fleet["data"].host.check_output("docker restart fba_rabbitmq")


def broker_frozen(fleet, seconds=20):
    """RabbitMQ says nothing."""
    freeze(fleet["data"], "fba_rabbitmq", seconds)


def broker_disk(fleet, seconds=20):
    """RabbitMQ takes its disk for full, and lets nobody publish."""
    rabbitmqctl = "docker exec fba_rabbitmq rabbitmqctl --silent"
    fleet["data"].host.check_output(
        f"{rabbitmqctl} set_disk_free_limit 100000GB && sleep {seconds} && {rabbitmqctl} set_disk_free_limit 1GB"
    )


# The other data services


def redis_killed(fleet):
    """Redis is killed."""
    kill_container(fleet["data"], "fba_redis")


def redis_emptied(fleet):
    """Redis forgets everything: sessions, results, progress."""
    data = fleet["data"]
    data.redis("FLUSHALL", "--no-auth-warning", data.secrets["fba_redis_password"])


def postgres_killed(fleet):
    """PostgreSQL is killed, all its processes at once."""
    kill_container(fleet["data"], "fba_postgres")


# Who serves


def server_killed(fleet):
    """A server is killed."""
    kill_container(fleet["app1"], SERVER)


def nginx_killed(fleet):
    """nginx is killed."""
    kill_container(fleet.door, "fba_nginx")


def beat_killed(fleet):
    """The beat that runs is killed."""
    kill_container(leading_beat(fleet), BEAT)


def beat_frozen(fleet, seconds=20):
    """The beat that runs says nothing for longer than its turn lasts, and wakes up."""
    freeze(leading_beat(fleet), BEAT, seconds)


# Hosts


def network_cut(fleet, seconds=60):
    """A worker's host is cut off, without a word."""
    drop = "FORWARD 1 -j DROP"
    fleet["work1"].host.check_output(f"iptables -w -I {drop} && sleep {seconds} && iptables -w -D FORWARD 1")


def docker_restarted(fleet):
    """A host's Docker is restarted; containers go on meanwhile."""
    fleet["app2"].host.check_output("systemctl restart docker")


def host_lost(fleet, reboot):
    """A worker's host loses its power, and comes back."""
    reboot(fleet["work2"].host, power_cut=True)


def host_rebooted(fleet, reboot):
    """A server's host is restarted."""
    reboot(fleet["app1"].host)


ALL = (
    worker_process,
    pool_child,
    worker_container,
    deaf_worker,
    wrong_clock,
    full_disk,
    broker_killed,
    broker_restarted,
    broker_frozen,
    broker_disk,
    redis_killed,
    redis_emptied,
    postgres_killed,
    server_killed,
    nginx_killed,
    beat_killed,
    beat_frozen,
    network_cut,
    docker_restarted,
    host_lost,
    host_rebooted,
)
"""In the order in which they come the first time."""


def complaints(fleet):
    """Yield what is not healthy, on which host; nothing when the stack is whole."""
    for host in fleet.members():
        answer = fleet[host].host.run("docker ps --all --filter label=fba.stack --filter label=fba.once=false --format '{{json .}}'")
        if answer.rc != 0:
            yield f"{host}: {answer.stderr.strip()}"
            continue
        for each in map(json.loads, answer.stdout.splitlines()):
            if "(healthy)" not in each["Status"]:
                yield f"{host}: {each['Names']} is {each['Status']}"
    # Asked last: Docker's word on a worker is some seconds old, and this is the dearest question
    for stack in fleet.of("worker"):
        if not stack.consumes():
            yield f"{stack.name}: a pool does not consume"


def is_whole(fleet):
    """Return whether nothing is amiss."""
    return next(complaints(fleet), None) is None
