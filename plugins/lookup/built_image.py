# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The name of an image that the collection builds, tagged by the hash of what it is built from."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.fba.stack.plugins.plugin_utils.tree import TreeError, build_trees, tree_hash

DOCUMENTATION = r"""
name: built_image
short_description: Name an image by what it is built from
version_added: 1.0.0
author: The fba.stack authors
description:
  - Returns C(name:tag), where the tag is a hash over every file of the build context and every build argument.
  - The same source always has the same name, so an image that exists is an image that need not be built.
options:
  _terms:
    description: Build descriptions, each a dictionary with C(name), C(dockerfile), C(trees) and C(args).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('fba.stack.built_image', build) }}"
  vars:
    build:
      name: fba/flower
      dockerfile: flower
      trees:
        build/uv: recipe:uv
      args: {}
"""

RETURN = r"""
_raw:
  description: Image names.
  type: list
  elements: str
"""


@cache
def tag(build: str) -> str:
    """Return the hash of a build description, which is given as JSON.

    Once for each process: Ansible has one for each task, and a task asks for the application's image many times.

    Raises:
        TreeError: a folder cannot be used.
    """
    description = json.loads(build)
    return tree_hash(build_trees(description), description["args"])


class LookupModule(LookupBase):
    """Implements the lookup."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the name of each described image."""
        try:
            return [f"{build['name']}:{tag(json.dumps(build, sort_keys=True))}" for build in terms]
        except TreeError as error:
            raise AnsibleLookupError(f"fba_app_source: {error}") from error
