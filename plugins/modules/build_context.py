# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: build_context
short_description: Send the folders that an image is built from to the build host
version_added: 1.0.0
author: The fba.stack authors
description:
  - Packs the folders of a build, without what their C(.dockerignore) leaves out, and unpacks them on the host, in one transfer.
options:
  build:
    description: Build description, as a variable has it that the lookup P(fba.stack.built_image#lookup) is asked about.
    type: dict
    required: true
  files:
    description: Further files of the context, path to text, which do not count for the image's name.
    type: dict
    default: {}
  dest:
    description: Folder on the host, which exists and is empty.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Send the sources
  fba.stack.build_context:
    build:
      name: fba/flower
      dockerfile: flower
      trees:
        build/uv: recipe:uv
      args: {}
    dest: /var/cache/fba/build/flower
"""

RETURN = r""" # """
