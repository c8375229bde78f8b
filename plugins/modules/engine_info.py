#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell which containers and images the Docker engine has, without a library on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_info
short_description: Tell which containers and images the Docker engine has
version_added: 1.1.0
author: The fba.stack authors
description:
  - What M(community.docker.docker_host_info) and M(community.docker.docker_image_info) return of containers and images, in half the time,
    as the engine is asked without a library. Every run asks on every host.
options:
  labels:
    description: Labels that a container has to have, each C(name=value). Without any, containers are not asked for.
    type: list
    elements: str
    default: []
  images:
    description: Names of images, with a tag or a digest.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Find the stack's containers
  fba.stack.engine_info:
    labels: [fba.stack=fba]
"""

RETURN = r"""
containers:
  description: The containers with all of the labels, in whatever state, as the engine lists them.
  type: list
  elements: dict
  returned: always
images:
  description: Those of the images that are there, as C(docker image inspect) shows them.
  type: list
  elements: dict
  returned: always
"""

import json
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fba.stack.plugins.module_utils.engine import EngineAway, look_up


def labelled(labels):
    """Return the containers with all of the labels, as the engine lists them."""
    filters = quote(json.dumps({"label": labels}))
    return look_up(f"/containers/json?all=1&filters={filters}") if labels else []


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "labels": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        containers = labelled(module.params["labels"])
        images = [look_up(f"/images/{quote(name)}/json") for name in module.params["images"]]
    except EngineAway as error:
        module.fail_json(msg=f"The Docker engine does not say what it has: {error}")
    module.exit_json(changed=False, containers=containers, images=[image for image in images if image])


if __name__ == "__main__":
    main()
