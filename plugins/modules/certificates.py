# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action of the same name: it runs on the controller alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Keep an internal certificate authority and what it issues
version_added: 1.0.0
author: The fba.stack authors
description:
  - Makes the authority on first use, and issues every certificate that is missing, names other hosts, or is about to end.
  - Puts another authority in the place of the first, in three steps between which every host has to take over what has changed.
  - Runs on the controller. Keys and certificates are kept in a vault file and returned as facts.
options:
  path:
    description: Vault file on the controller.
    type: path
    required: true
  authority:
    description: Common name of the authority.
    type: str
    required: true
  authority_days:
    description: Days that a new authority is valid.
    type: int
    required: true
  authority_warn_days:
    description: An authority with fewer days left than this brings a warning.
    type: int
    required: true
  wanted:
    description: Subject to C(names) (DNS) and C(addresses) (IP) that its certificate holds for, both empty for a mere client.
    type: dict
    required: true
  whole:
    description: Whether the run is about all hosts of the stack. Otherwise no first authority is made.
    type: bool
    required: true
  days:
    description: Days that a new certificate is valid.
    type: int
    required: true
  renew_days:
    description: A certificate with fewer days left than this is issued again.
    type: int
    required: true
  step:
    description:
      - C(trust) makes the next authority, so that both are trusted. C(issue) issues everything again by the newer one. C(retire) forgets
        the older one. Empty leaves the authorities as they are.
    type: str
    choices: ["", trust, issue, retire]
    default: ""
"""

EXAMPLES = r"""
- name: Issue the certificates
  fba.stack.certificates:
    path: "{{ inventory_dir }}/group_vars/all/fba_certificates.yml"
    authority: fba internal authority
    authority_days: 3650
    authority_warn_days: 365
    wanted:
      data/postgres: {names: [fba_postgres, localhost], addresses: []}
    whole: true
    days: 825
    renew_days: 60
  no_log: true
"""

RETURN = r"""
issued:
  description: What was issued by this run.
  type: list
  elements: str
  returned: always
ansible_facts:
  description:
    - C(fba_ca_certificate), PEM text of all trusted authorities, and C(fba_certificates), subject to C(certificate) and C(private_key).
  type: dict
  returned: always
"""
