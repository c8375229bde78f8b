# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print text for people: a table or a paragraph, as it is, without the frame of a task's result."""

from __future__ import annotations

from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

COLOURS = {
    "healthy": C.COLOR_OK,
    "exited": C.COLOR_UNREACHABLE,
    **dict.fromkeys(("unhealthy", "missing", "failed", "stale", "never made"), C.COLOR_ERROR),
}


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table whose columns are as wide as their widest cell."""
    cells = [columns, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


class ActionModule(ActionBase):
    """Implements the action."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print it."""
        result = super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec(
            {
                "text": {"type": "str"},
                "columns": {"type": "list", "elements": "str"},
                "rows": {"type": "list", "elements": "list"},
            },
            required_one_of=[["text", "columns"]],
            required_together=[["columns", "rows"]],
        )
        display = Display()
        if args["text"]:
            display.display("\n" + args["text"].rstrip())
        if args["columns"]:
            header, *lines = table(args["columns"], args["rows"])
            display.display("\n" + header, color=C.COLOR_HIGHLIGHT)
            for row, line in zip(args["rows"], lines, strict=True):
                colour = next((COLOURS[str(cell)] for cell in row if str(cell) in COLOURS), None)
                display.display(line, color=colour)
        result["changed"] = False
        return result
