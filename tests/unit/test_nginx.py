"""The scripts of the role nginx: the one that reloads it, against a /proc of the test's own, and the one that publishes static files."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

from conftest import ROOT

WORKER = "nginx: worker process"
ENDING = "nginx: worker process is shutting down"
Titles = dict[int, str]


def become(folder: Path, titles: Titles) -> str:
    """Return what the shell does to have the kernel show these processes and no others."""
    lines = [f"cd {folder}/proc"]
    for pid, title in titles.items():
        # What the title has left of the program's arguments stays behind it
        lines.append(f"mkdir -p {pid}; printf '%s\\0\\0' '{title}' > .new; mv .new {pid}/cmdline")
    lines.append(f"for pid in [0-9]*; do case ' {' '.join(map(str, titles))} ' in *\" $pid \"*) ;; *) rm -r $pid ;; esac; done")
    return "; ".join(lines)


def reload(folder: Path, reloaded: str, patience: int = 30) -> subprocess.CompletedProcess[str]:
    """Run the script where two processes take requests, with a program in nginx's place that does `reloaded` when it is told to reload."""
    script = (ROOT / "roles/nginx/templates/reload.sh.j2").read_text(encoding="utf-8")
    script = script.replace("{{ __nginx_config }}", "/etc/nginx.conf").replace("/proc/", f"{folder}/proc/")
    assert "{{" not in script
    (folder / "proc").mkdir()
    before: Titles = {1: "/sbin/docker-init", 7: "nginx: master process nginx", 8: WORKER, 9: WORKER, 12: "sh"}
    subprocess.run(["sh", "-euc", become(folder, before)], check=True)
    program = folder / "nginx"
    program.write_text(f'#!/bin/sh\ncase "$*" in\n*"-s reload") {reloaded} ;;\n*-t*) [ ! -e {folder}/bad ] ;;\nesac\n')
    program.chmod(0o755)
    return subprocess.run(
        ["sh", "-euc", script.replace("+ 30", f"+ {patience}")],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_reload_is_over_when_others_take_the_requests(tmp_path: Path) -> None:
    done = reload(tmp_path, become(tmp_path, {8: ENDING, 10: WORKER, 11: WORKER}))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_reload_waits_until_then(tmp_path: Path) -> None:
    """Processes come one by one, without a title at first, and those from before are told last."""
    steps: list[Titles] = [
        {8: WORKER, 9: WORKER, 10: "nginx: master process nginx"},
        {8: WORKER, 9: WORKER, 10: WORKER},
        {8: ENDING, 9: WORKER, 10: WORKER},
    ]
    slow = [f"{become(tmp_path, step)}; sleep 0.3" for step in steps]
    slow += [f"touch {tmp_path}/told", become(tmp_path, {9: ENDING, 10: WORKER})]
    done = reload(tmp_path, f"( {'; '.join(slow)} ) > /dev/null 2>&1 &")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize(
    ("after", "left", "now"),
    [
        ({8: WORKER, 9: WORKER}, "8 9", "8 9"),
        ({8: ENDING, 9: WORKER, 10: WORKER}, "9", "10 9"),
        ({8: ENDING, 9: ENDING}, "none", "none"),
        ({}, "none", "none"),
    ],
    ids=["nothing happens", "one goes on", "no successor", "nobody is left"],
)
def test_a_reload_that_does_not_end_fails_and_says_why(tmp_path: Path, after: Titles, left: str, now: str) -> None:
    done = reload(tmp_path, become(tmp_path, after), patience=1)
    assert done.returncode == 1
    assert f"that take requests: {left}. All that do: {now}\n" in done.stderr.replace(f"{tmp_path}/proc/", "")


def test_a_bad_configuration_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad").touch()
    done = reload(tmp_path, f"touch {tmp_path}/reloaded")
    assert done.returncode == 1
    assert not (tmp_path / "reloaded").exists()


# The static files


class Volume:
    """The volume of the static files, and the folder of an image that they come from."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "volume"
        self.image = folder / "image"
        self.serving = folder / "serving"
        self.root.mkdir()
        self.serving.touch()
        self.published = 0

    def publish(self, release: str, content: str | None = "", keep: int = 3) -> None:
        """Publish a release, whose image has no folder where there is no content."""
        shutil.rmtree(self.image, ignore_errors=True)
        if content is not None:
            (self.image / "sub").mkdir(parents=True)
            (self.image / "sub" / "style.css").write_text(content or release)
        source = (ROOT / "roles/nginx/templates/publish_static.sh.j2").read_text(encoding="utf-8")
        environment = Environment(undefined=StrictUndefined, autoescape=False)
        environment.filters["quote"] = shlex.quote
        script = environment.from_string(source).render(
            fba_app_static_dir=str(self.image), __fba_release=release, nginx_static_releases=keep, __nginx_serving_file=str(self.serving)
        )
        subprocess.run(["sh", "-euc", script.replace("/srv/static", str(self.root))], check=True)
        # A clock that goes in steps would make it a matter of luck which is the newest
        self.published += 1
        for name in self.releases():
            if time.time() - (self.root / name).stat().st_mtime < 3600:
                order = 2 if name == release else 1
                os.utime(self.root / name, (10 * self.published + order, 10 * self.published + order))

    def releases(self) -> list[str]:
        """All that is there."""
        return sorted(path.name for path in self.root.iterdir())

    def style(self, release: str) -> Path:
        """A file of a release."""
        return self.root / release / "sub" / "style.css"


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """An empty one."""
    return Volume(tmp_path)


def test_the_newest_releases_stay(volume: Volume) -> None:
    for release in ("a", "b", "c", "d"):
        volume.publish(release)
    assert volume.releases() == ["b", "c", "d"]
    # A way back: it is the newest again
    volume.publish("b")
    volume.publish("e")
    assert volume.releases() == ["b", "d", "e"]
    volume.publish("f", keep=2)
    assert volume.releases() == ["e", "f"]
    assert volume.style("f").read_text() == "f"


def test_the_release_that_is_served_stays_however_many_failed_since(volume: Volume) -> None:
    volume.publish("good")
    volume.serving.write_text("good")
    for release in ("bad-1", "bad-2", "bad-3", "bad-4"):
        volume.publish(release, keep=2)
        assert volume.releases() == [release, "good"]


def test_what_is_published_already_is_left_alone_while_it_is_served(volume: Volume) -> None:
    volume.publish("a")
    before = volume.style("a").stat()
    volume.publish("a")
    after = volume.style("a").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    # A tag that means another image now
    volume.publish("a", "other")
    assert volume.style("a").read_text() == "other"
    assert volume.releases() == ["a"]


def test_an_application_without_static_files_has_an_empty_release(volume: Volume) -> None:
    volume.publish("a", None)
    assert volume.releases() == ["a"]
    assert list((volume.root / "a").iterdir()) == []


def test_what_an_interrupted_run_has_left_goes(volume: Volume) -> None:
    for name in (".new", ".old"):
        (volume.root / name).mkdir()
        (volume.root / name / "half").touch()
    volume.publish("a")
    assert volume.releases() == ["a"]
    assert [path.name for path in (volume.root / "a").iterdir()] == ["sub"]
