"""How each kind of task looks on the pages. A kind that is not here has a form for JSON, and its result as JSON."""

import json
from typing import ClassVar
from uuid import UUID

from pydantic import ValidationError
from typing_extensions import override

from fba_app.kinds.inference import METADATA
from fba_app.tasks.registry import KINDS, Kind
from fba_app.types import Json
from fba_app.web.forms import Form, Values
from fba_app.web.render import label

SAMPLES = METADATA["samples"][:10]
INK = 16
PIXELS = 64


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


class KindPage:
    """Any kind of task."""

    template = "any"
    """`kinds/<template>_fields.html` and `kinds/<template>_result.html`."""
    initial: ClassVar[Values] = {}

    def start(self, kind: Kind) -> Form:
        """Return the form to begin with."""
        return Form(self.initial)

    def read(self, form: Form) -> object:
        """Return the arguments that a form holds; whether they are right is not looked at."""
        raise NotImplementedError

    def fill(self, arguments: Json) -> Values:
        """Return the form that holds these arguments, as far as it can."""
        raise NotImplementedError

    def title(self, name: str, arguments: Json, files: dict[UUID, str]) -> str:
        """Say in a line what a task does. `files` are the names of the files that it may speak of."""
        return label(name)

    def outcome(self, result: Json) -> str:
        """Say in some words what came of it."""
        return ""

    def facts(self, arguments: Json, files: dict[UUID, str]) -> list[tuple[str, str]]:
        """Return what was asked for: names and values."""
        return [
            (label(name), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for name, value in arguments.items()
            if value not in (None, [])
        ]


class JsonPage(KindPage):
    """A kind without a form of its own, or arguments that do not fit in it."""

    @override
    def start(self, kind: Kind) -> Form:
        properties = kind.arguments.model_json_schema().get("properties", {})
        return Form(self.fill({name: (about.get("examples") or [None])[0] for name, about in properties.items()}))

    @override
    def read(self, form: Form) -> object:
        try:
            return json.loads(form.text("arguments"))
        except (ValueError, RecursionError):
            form.errors["arguments"] = "This is not JSON."
            return None

    @override
    def fill(self, arguments: Json) -> Values:
        return {"arguments": [json.dumps(arguments, indent=2, ensure_ascii=False)]}


class SleepPage(KindPage):
    """`sleep`."""

    template = "sleep"
    initial: ClassVar[Values] = {"duration": ["5"]}

    @override
    def read(self, form: Form) -> object:
        return {"duration": form.number("duration")}

    @override
    def fill(self, arguments: Json) -> Values:
        return {"duration": [str(arguments["duration"])]}

    @override
    def title(self, name: str, arguments: Json, files: dict[UUID, str]) -> str:
        return f"Sleep for {_count(arguments['duration'], 'second')}"


class EmailPage(KindPage):
    """`email`."""

    template = "email"

    @override
    def read(self, form: Form) -> object:
        return {
            "to": form.words("to"),
            "cc": form.words("cc"),
            "bcc": form.words("bcc"),
            "subject": form.text("subject"),
            "text": form.text("text"),
            "attachments": form.texts("attachments"),
        }

    @override
    def fill(self, arguments: Json) -> Values:
        addresses = {name: [", ".join(arguments[name])] for name in ("to", "cc", "bcc")}
        return addresses | {
            "subject": [arguments["subject"]],
            "text": [arguments["text"] or ""],
            "attachments": arguments["attachments"],
        }

    @override
    def title(self, name: str, arguments: Json, files: dict[UUID, str]) -> str:
        return f"Email “{arguments['subject']}”"

    @override
    def outcome(self, result: Json) -> str:
        refused = f", refused for {len(result['refused'])}" if result["refused"] else ""
        return f"sent to {_count(len(result['sent']), 'recipient')}{refused}"

    @override
    def facts(self, arguments: Json, files: dict[UUID, str]) -> list[tuple[str, str]]:
        names = [files.get(UUID(file_id), "a file that was deleted") for file_id in arguments["attachments"]]
        return super().facts(arguments | {"attachments": names}, files)


class ReportPage(KindPage):
    """`report`."""

    template = "report"
    initial: ClassVar[Values] = {
        "title": ["Tasks of the last 30 days"],
        "days": ["30"],
        "format": ["both"],
        "scope": ["own"],
    }

    @override
    def read(self, form: Form) -> object:
        return {
            "title": form.text("title"),
            "days": form.number("days"),
            "format": form.text("format"),
            "scope": form.text("scope") or "own",
        }

    @override
    def fill(self, arguments: Json) -> Values:
        return {name: [str(arguments[name])] for name in self.initial}

    @override
    def title(self, name: str, arguments: Json, files: dict[UUID, str]) -> str:
        return f"Report “{arguments['title']}”"

    @override
    def facts(self, arguments: Json, files: dict[UUID, str]) -> list[tuple[str, str]]:
        formats = {"both": "PDF and Excel", "pdf": "PDF", "xlsx": "Excel"}
        scopes = {"own": "one's own", "all": "everyone's"}
        return [
            ("Title", arguments["title"]),
            ("Days", str(arguments["days"])),
            ("Format", formats[arguments["format"]]),
            ("Tasks", scopes[arguments["scope"]]),
        ]


class InferencePage(KindPage):
    """`inference`."""

    template = "inference"
    initial: ClassVar[Values] = {"sample": ["0"]}

    @override
    def read(self, form: Form) -> object:
        drawn = set(form.texts("pixel"))
        drawing = [INK if str(pixel) in drawn else 0 for pixel in range(PIXELS)]
        images = [drawing] if any(drawing) else []
        chosen = set(form.texts("sample"))
        return {"images": images + [s["image"] for number, s in enumerate(SAMPLES) if str(number) in chosen]}

    @override
    def fill(self, arguments: Json) -> Values:
        drawn = [str(pixel) for pixel, ink in enumerate(arguments["images"][0]) if ink == INK]
        samples = [str(number) for number, s in enumerate(SAMPLES) if s["image"] in arguments["images"]]
        return {"sample": samples} | (
            {} if arguments["images"][0] in (s["image"] for s in SAMPLES) else {"pixel": drawn}
        )

    @override
    def title(self, name: str, arguments: Json, files: dict[UUID, str]) -> str:
        return f"Read {_count(len(arguments['images']), 'digit')}"

    @override
    def outcome(self, result: Json) -> str:
        digits = [str(prediction["digit"]) for prediction in result["predictions"]]
        return "read as " + ", ".join(digits[:10]) + ("…" if len(digits) > 10 else "")

    @override
    def facts(self, arguments: Json, files: dict[UUID, str]) -> list[tuple[str, str]]:
        return [("Images", f"{len(arguments['images']):,}")]


class PipelinePage(KindPage):
    """`pipeline`."""

    template = "pipeline"

    @override
    def read(self, form: Form) -> object:
        return {
            "file_id": form.text("file_id") or None,
            "delimiter": "\t" if form.text("delimiter") == "tab" else form.text("delimiter"),
            "group_by": form.text("group_by") or None,
            "value": form.text("value") or None,
        }

    @override
    def fill(self, arguments: Json) -> Values:
        return {
            "file_id": [arguments["file_id"]],
            "delimiter": ["tab" if arguments["delimiter"] == "\t" else arguments["delimiter"]],
            "group_by": [arguments["group_by"] or ""],
            "value": [arguments["value"] or ""],
        }

    def _file(self, arguments: Json, files: dict[UUID, str]) -> str:
        return files.get(UUID(arguments["file_id"]), "a file that was deleted")

    @override
    def title(self, name: str, arguments: Json, files: dict[UUID, str]) -> str:
        return f"Statistics of {self._file(arguments, files)}"

    @override
    def outcome(self, result: Json) -> str:
        return _count(result["rows"], "row")

    @override
    def facts(self, arguments: Json, files: dict[UUID, str]) -> list[tuple[str, str]]:
        delimiters = {",": "commas", ";": "semicolons", "\t": "tabs"}
        rest = {name: arguments[name] for name in ("group_by", "value") if arguments[name]}
        return [
            ("File", self._file(arguments, files)),
            ("Separated by", delimiters[arguments["delimiter"]]),
            *super().facts(rest, files),
        ]


JSON_PAGE = JsonPage()
PAGES: dict[str, KindPage] = {
    "report": ReportPage(),
    "email": EmailPage(),
    "inference": InferencePage(),
    "pipeline": PipelinePage(),
    "sleep": SleepPage(),
}


def page_of(name: str) -> KindPage:
    """Return how this kind of task looks."""
    return PAGES.get(name, JSON_PAGE)


def posted_page(name: str, form: Form) -> KindPage:
    """Return which of a kind's forms was sent."""
    return JSON_PAGE if "arguments" in form.values else page_of(name)


def shape_of(name: str, arguments: Json) -> tuple[KindPage, list[UUID]]:
    """Return how a task looks, and its files. One that an earlier version of its kind has left looks like any."""
    try:
        KINDS[name].arguments.model_validate(arguments)
    except (KeyError, ValidationError):
        return JSON_PAGE, []
    if name == "pipeline":
        return page_of(name), [UUID(arguments["file_id"])]
    if name == "email":
        return page_of(name), [UUID(file_id) for file_id in arguments["attachments"]]
    return page_of(name), []


def filled(kind: Kind, arguments: Json) -> Form:
    """Return a form with these arguments: the kind's own, if it can hold them without a loss."""
    shape, _ = shape_of(kind.name, arguments)
    form = Form(shape.fill(arguments))
    try:
        kept = kind.arguments.model_validate(shape.read(form)).model_dump(mode="json")
    except ValidationError:
        kept = None
    return form if kept == arguments else Form(JSON_PAGE.fill(arguments))


def public_kinds() -> list[str]:
    """Return the kinds that users may submit, those with a page of their own first and in its order."""
    known = [name for name in PAGES if name in KINDS]
    return known + [name for name, kind in KINDS.items() if kind.public and name not in PAGES]
