"""Images in the stack's own registry."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.filter.images import (
    delivered_images,
    image_digests,
    image_release,
    images_lacking,
    registry_digest_name,
    registry_name,
    registry_surplus,
)

REGISTRY = "10.20.0.11:5000"
PINNED = "postgres@sha256:" + "5" * 64
# What docker takes for the name of an image, as distribution's reference grammar has it
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(rf"[a-zA-Z0-9.-]+:[0-9]+/{PART}(?:/{PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}|@sha256:[0-9a-f]{{64}})")


def digest(number: int) -> str:
    """A digest."""
    return f"sha256:{number:064x}"


IMAGES = [
    "fba/postgres:17-0123456789ab",
    "fba/app:0123456789abcdef",
    "docker.io/library/nginx:1.28.0",
    "10.213.0.10:5000/library/redis:8.0",
    "localhost:5000/mine",
    "registry.example.com/team/app:2.1",
    PINNED,
    f"registry.example.com:8443/team/app:2.1@{digest(7)}",
]


@pytest.mark.parametrize("image", IMAGES)
def test_names_are_ones_that_docker_takes_and_in_the_stacks_registry(image: str) -> None:
    for name in (registry_name(image, REGISTRY), registry_digest_name(image, REGISTRY, {image: digest(1)})):
        assert REFERENCE.fullmatch(name), name
        assert name.startswith(f"{REGISTRY}/")
    assert registry_digest_name(image, REGISTRY, {image: digest(1)}).endswith(f"@{digest(1)}")


def test_no_two_images_share_a_place() -> None:
    alike = ["a/app:1", "a/app:2", "b/app:1", "host:5000/a/app:1", "host:5001/a/app:1", f"a/app@{digest(1)}", f"a/app@{digest(2)}"]
    assert len({registry_name(image, REGISTRY) for image in [*IMAGES, *alike]}) == len(IMAGES) + len(alike)


def test_without_a_tag_it_is_the_latest_for_docker_too() -> None:
    assert registry_name("localhost:5000/mine", REGISTRY) == registry_name("localhost:5000/mine:latest", REGISTRY)


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("fba/app:0123456789ab", "0123456789ab"),
        ("registry.example.com:8443/team/app:2.1", "2.1"),
        ("localhost:5000/mine", "latest"),
        (f"team/app:2.1@{digest(7)}", f"sha256-{7:064x}"),
    ],
)
def test_a_release_is_called_by_the_images_tag_or_digest(image: str, release: str) -> None:
    assert image_release(image) == release
    # What nginx takes for the name of a folder
    assert re.fullmatch(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,127}", release)


def test_an_image_that_was_never_made_has_no_digest() -> None:
    with pytest.raises(KeyError):
        registry_digest_name("fba/app:1", REGISTRY, {"fba/app:2": digest(1)})


def info(tags: list[str] | None = None, digests: list[str] | None = None) -> dict[str, Any]:
    """An image as docker_image_info tells of it."""
    return {"Id": "sha256:0", "RepoTags": tags, "RepoDigests": digests}


# As docker lists an image that has this name: without the public registry's, and by its digest alone where there is one
LISTED = [
    ("fba/app:1", info(["fba/app:1"])),
    ("docker.io/library/nginx:1.28.0", info(["nginx:1.28.0"])),
    ("docker.io/team/app:1", info(["team/app:1"])),
    ("nginx:1.28.0", info(["nginx:1.28.0"])),
    ("nginx", info(["nginx:latest"])),
    ("10.213.0.10:5000/library/redis:8.0", info(["10.213.0.10:5000/library/redis:8.0"])),
    ("localhost:5000/mine", info(["localhost:5000/mine:latest"])),
    (PINNED, info(None, [PINNED])),
    (f"docker.io/library/postgres:17@{PINNED.partition('@')[2]}", info([], [PINNED])),
]


@pytest.mark.parametrize(("image", "listed"), LISTED, ids=[image for image, _listed in LISTED])
def test_the_digest_is_that_of_this_image_in_this_registry(image: str, listed: dict[str, Any]) -> None:
    place = registry_digest_name(image, REGISTRY, {image: digest(1)})
    elsewhere = place.replace(REGISTRY, "10.20.0.12:5000").replace(digest(1), digest(2))
    listed = {**listed, "RepoDigests": [*(listed["RepoDigests"] or []), elsewhere, place]}
    others = [info(["other/app:1"], [f"{REGISTRY}/other/app@{digest(3)}"]), info(None, None)]
    assert image_digests([*others, listed], [image], REGISTRY) == {image: digest(1)}
    assert images_lacking([*others, listed], [image], REGISTRY, {image: digest(1)}) == []


def test_what_was_never_in_the_registry_has_no_digest() -> None:
    present = [info(["fba/app:1"], [f"elsewhere:5000/fba/app@{digest(1)}"]), info(["fba/flower:1"])]
    assert image_digests(present, ["fba/app:1", "fba/flower:1", "fba/redis:1"], REGISTRY) == {}


def test_a_host_lacks_what_it_has_not_and_what_it_has_otherwise() -> None:
    recorded = {"fba/app:1": digest(1), "fba/redis:1": digest(2), "fba/nginx:1": digest(3)}
    present = [
        info(["fba/app:1"], [f"{REGISTRY}/fba/app@{digest(1)}"]),
        # Built again under the same name
        info(["fba/redis:1"], [f"{REGISTRY}/fba/redis@{digest(9)}"]),
        # Here by another way than the registry
        info(["fba/flower:1"]),
    ]
    wanted = ["fba/app:1", "fba/redis:1", "fba/nginx:1", "fba/flower:1"]
    assert images_lacking(present, wanted, REGISTRY, recorded) == ["fba/redis:1", "fba/nginx:1", "fba/flower:1"]
    assert images_lacking(present, ["fba/app:1"], REGISTRY, recorded) == []
    # A list that was lost makes everything be handed out anew
    assert images_lacking(present, ["fba/app:1"], REGISTRY, {}) == ["fba/app:1"]


def test_only_what_came_through_the_registry_and_nobody_uses_is_removed() -> None:
    images: list[dict[str, Any]] = [
        {"Id": "sha256:a", "RepoDigests": [f"{REGISTRY}/fba/app@{digest(1)}"]},
        {"Id": "sha256:b", "RepoDigests": [f"{REGISTRY}/fba/redis@{digest(2)}"]},
        {"Id": "sha256:c", "RepoDigests": [f"elsewhere:5000/fba/app@{digest(3)}"]},
        # The same beginning is another registry
        {"Id": "sha256:d", "RepoDigests": [f"{REGISTRY}1/fba/app@{digest(4)}"]},
        {"Id": "sha256:e", "RepoDigests": None},
    ]
    assert delivered_images(images, [{"ImageID": "sha256:b"}], REGISTRY) == ["sha256:a"]


def test_what_no_image_is_called_by_is_surplus_in_the_registry() -> None:
    root = "/var/lib/docker/volumes/fba_registry/_data/docker/registry/v2/repositories"
    names = [registry_name(image, REGISTRY).removeprefix(f"{REGISTRY}/").rpartition(":") for image in IMAGES]
    kept = [f"{root}/{path}/_manifests/tags/{tag}/current" for path, _, tag in names]
    old = [f"{root}/{tag}/current" for tag in ("fba/app/_manifests/tags/76543210", "other/app/_manifests/tags/0123456789abcdef")]
    assert registry_surplus(kept + old, IMAGES) == old
    assert registry_surplus(kept, IMAGES) == []
