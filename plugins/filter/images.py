# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images in the stack's own registry: what they are called there, and which of them a host lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def _repository(image: str) -> tuple[str, str]:
    """Return an image's place in the registry, and its tag: a place has no port, and a digest becomes a tag."""
    name, _, digest = image.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, "latest"
    return path.replace(":", "_"), digest.replace(":", "-") or tag


def _familiar(image: str) -> str:
    """Return an image's name as Docker lists it: without the public registry's name, and without a tag beside a digest."""
    name, _, digest = image.partition("@")
    path, colon, tag = re.sub(r"^(index\.)?docker\.io/(library/)?", "", name).rpartition(":")
    if not colon or "/" in tag:
        path, tag = path + colon + tag, "latest"
    return f"{path}@{digest}" if digest else f"{path}:{tag}"


def image_release(image: str) -> str:
    """Return the name of the release that an image of the application is: its tag, or its digest with a dash in it."""
    return _repository(image)[1]


def registry_name(image: str, registry: str) -> str:
    """Return what an image is called in the registry, with its tag."""
    path, tag = _repository(image)
    return f"{registry}/{path}:{tag}"


def registry_digest_name(image: str, registry: str, digests: dict[str, str]) -> str:
    """Return what an image is called in the registry, with its digest. Raises KeyError where the digest is not known."""
    return f"{registry}/{_repository(image)[0]}@{digests[image]}"


def image_digests(present: list[dict[str, Any]], images: list[str], registry: str) -> dict[str, str]:
    """Return image to its digest in the registry, for those that have been there, from what docker_image_info says of the present ones."""
    digests: dict[str, str] = {}
    for image in images:
        prefix = f"{registry}/{_repository(image)[0]}@"
        for info in present:
            if _familiar(image) in [*(info.get("RepoTags") or []), *(info.get("RepoDigests") or [])]:
                known = [name.removeprefix(prefix) for name in info.get("RepoDigests") or [] if name.startswith(prefix)]
                if known:
                    digests[image] = known[0]
    return digests


def images_lacking(present: list[dict[str, Any]], images: list[str], registry: str, digests: dict[str, str]) -> list[str]:
    """Return the images that a host does not have, or not with the digest that was recorded when they were made."""
    have = image_digests(present, images, registry)
    return [image for image in images if image not in have or have[image] != digests.get(image)]


def delivered_images(images: list[dict[str, Any]], containers: list[dict[str, Any]], registry: str) -> list[str]:
    """Return the ids of the images that have been in the registry and that no container is made of, as docker_host_info lists both."""
    used = {container["ImageID"] for container in containers}
    return [
        image["Id"]
        for image in images
        if image["Id"] not in used and any(name.startswith(f"{registry}/") for name in image.get("RepoDigests") or [])
    ]


def registry_surplus(places: list[str], images: list[str]) -> list[str]:
    """Return those places in a registry's storage that are tags of none of these images.

    `places` are the paths of what each tag points to: …/repositories/<path>/_manifests/tags/<tag>/current.
    """
    wanted = {_repository(image) for image in images}
    parted = [(place, *place.rpartition("/repositories/")[2].split("/_manifests/tags/")) for place in places]
    return [place for place, path, tag in parted if (path, tag.removesuffix("/current")) not in wanted]


class FilterModule:
    """Filters on images."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "delivered_images": delivered_images,
            "image_digests": image_digests,
            "image_release": image_release,
            "images_lacking": images_lacking,
            "registry_digest_name": registry_digest_name,
            "registry_name": registry_name,
            "registry_surplus": registry_surplus,
        }
