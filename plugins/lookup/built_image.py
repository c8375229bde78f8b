# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The name of an image that the collection builds, tagged by the hash of what it is built from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.fba.stack.plugins.plugin_utils.once import once_for_each_task
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
    description: Names of the variables that describe a build, each a dictionary with C(name), C(dockerfile), C(trees) and C(args).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('fba.stack.built_image', 'build') }}"
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


def image_name(build: dict[str, Any]) -> str:
    """Return the name of the image that a build makes.

    Raises:
        TreeError: a folder cannot be used.
    """
    return f"{build['name']}:{tree_hash(build_trees(build), build['args'])}"


class LookupModule(LookupBase):
    """Implements the lookup."""

    def _name(self, term: str, variables: Mapping[str, Any]) -> str:
        def find() -> str:
            # What comes back from JSON has no templates any more
            return image_name(json.loads(json.dumps(self._templar.template(variables[term]))))

        return once_for_each_task(("built_image", variables.get("inventory_hostname"), term), find)

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the name of each described image."""
        known = variables or {}
        try:
            return [self._name(term, known) for term in terms]
        except KeyError as error:
            raise AnsibleLookupError(f"There is no variable {error}") from error
        except TreeError as error:
            raise AnsibleLookupError(f"fba_app_source: {error}") from error
