# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The name of a service's image: an official one, or the one the collection builds from Debian packages."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.fba.stack.plugins.plugin_utils.tree import RECIPES, tree_hash

DOCUMENTATION = r"""
name: service_image
short_description: Name the image of a service
version_added: 1.0.0
author: The fba.stack authors
description:
  - With O(source=registry), the official image in O(registry), pinned to O(version).
  - With O(source=distro), the image built from Debian packages, tagged by O(version) and a hash of its recipe and of O(epoch).
options:
  _terms:
    description: Names of services, as the official images call them.
    type: list
    elements: str
    required: true
  source:
    description: Where images come from.
    type: str
    choices: [distro, registry]
    required: true
  registry:
    description: Registry and path in front of the official names.
    type: str
    required: true
  version:
    description: Tag of the official image, or the version that the Debian release has.
    type: str
    required: true
  epoch:
    description: Part of the tag of built images; a new value builds them again with the day's security updates.
    type: str
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('fba.stack.service_image', 'redis', version='8.0', source='distro', registry='', epoch='1') }}"
"""

RETURN = r"""
_raw:
  description: Image names.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """Implements the lookup."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the image name of each service."""
        self.set_options(var_options=variables, direct=kwargs)
        version = self.get_option("version")
        if self.get_option("source") == "registry":
            return [f"{self.get_option('registry')}/{term}:{version}" for term in terms]
        distro = RECIPES / "distro"
        return [
            f"fba/{term}:{version}-" + tree_hash({"base": distro / "base", "image": distro / term}, self.get_option("epoch"))
            for term in terms
        ]
