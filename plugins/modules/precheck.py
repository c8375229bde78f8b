# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: precheck
short_description: Refuse what cannot work, all of it in one message
version_added: 1.0.0
author: The fba.stack authors
description:
  - Checks the variables of every role that the host's groups bring, against the roles' argument specs and against each other, and the
    host itself, as M(fba.stack.host_state) sees it. Fails with every problem found.
"""

EXAMPLES = r"""
- name: Refuse what cannot work
  fba.stack.precheck:
"""

RETURN = r"""
problems:
  description: One sentence for each problem, naming the variable, its value and what is allowed.
  type: list
  elements: str
  returned: failure
"""
