"""A report as a PDF."""

import itertools
import textwrap
from collections.abc import Callable, Container, Iterator, Sequence
from html import escape
from io import BytesIO
from unicodedata import normalize

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.legends import Legend
from reportlab.graphics.shapes import Drawing
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, CondPageBreak, LongTable, Paragraph, SimpleDocTemplate

from fba_app.kinds.report.data import GREY, HEADINGS, INK, RULE, STATES, STRIPE, Count, Report

# Reportlab ships these; they have the letters of Western Europe. The fonts of PDF itself have hardly more.
for _name, _file in (("Vera", "Vera.ttf"), ("Vera-Bold", "VeraBd.ttf")):
    pdfmetrics.registerFont(TTFont(_name, _file))
GLYPHS: Container[int] = pdfmetrics.getFont("Vera-Bold").face.charToGlyph

MARGIN = 18 * mm
PADDING = 6
"""Of the frame in a page that the text is set in."""
WIDTH = A4[0] - 2 * MARGIN

TITLE = ParagraphStyle("title", fontName="Vera-Bold", fontSize=18, leading=24, spaceAfter=4, textColor=HexColor(INK))
HEADING = ParagraphStyle("heading", TITLE, fontSize=11, leading=14, spaceBefore=16, spaceAfter=6)
SMALL = ParagraphStyle("small", fontName="Vera", fontSize=8.5, leading=12, textColor=HexColor(GREY))


def _shown(character: str) -> str:
    if ord(character) in GLYPHS:
        return character
    return "".join(part for part in normalize("NFKD", character) if ord(part) in GLYPHS) or "?"


def in_font(text: str) -> str:
    """Replace each character that the font lacks by its base letter, such as ệ by e, or else by a question mark."""
    return "".join(_shown(character) for character in normalize("NFC", text))


def _words(count: Count) -> list[str]:
    *numbers, rate, duration = count.figures
    return [
        *(f"{number:,}" for number in numbers),
        "" if rate is None else f"{rate:.1%}",
        "" if duration is None else f"{duration:,.2f} s",
    ]


def _wrap(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 20))


def _table(keys: Sequence[str], rows: list[list[str]], *style: tuple[object, ...]) -> LongTable:
    keys_width = WIDTH * 0.32
    day_width = [52.0] * (len(keys) - 1)
    table = LongTable(
        [[*keys, *HEADINGS], *rows],
        colWidths=[*day_width, keys_width - sum(day_width)] + [(WIDTH - keys_width) / len(HEADINGS)] * len(HEADINGS),
        repeatRows=1,
    )
    table.setStyle(
        [
            ("FONT", (0, 0), (-1, 0), "Vera-Bold", 6.5),
            ("FONT", (0, 1), (-1, -1), "Vera", 7.5),
            ("TEXTCOLOR", (0, 0), (-1, -1), HexColor(INK)),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("ALIGN", (len(keys), 0), (-1, -1), "RIGHT"),
            ("LINEBELOW", (0, 0), (-1, 0), 0.8, HexColor(INK)),
            ("ROWBACKGROUNDS", (0, 1), (-1, -1), (None, HexColor(STRIPE))),
            ("LEFTPADDING", (0, 0), (-1, -1), 3),
            ("RIGHTPADDING", (0, 0), (-1, -1), 3),
            *style,
        ]
    )
    return table


def _step(highest: int, steps: int) -> int:
    """Return the round number that goes so many times into an axis that reaches the highest value."""
    powers: Iterator[int] = (10**power for power in itertools.count())
    return next(factor * power for power in powers for factor in (1, 2, 5) if factor * power * steps >= highest)


def _chart(report: Report) -> Drawing:
    left, height = 30, 180
    bars = VerticalBarChart()
    bars.x, bars.y, bars.width, bars.height = left, 44, WIDTH - left, height - 52
    bars.data = list(zip(*(count.states for count in report.days.values()), strict=True))
    bars.groupSpacing = 1
    bars.bars.strokeColor = None
    for index, (_, colour) in enumerate(STATES):
        bars.bars[index].fillColor = HexColor(colour)

    days, values = bars.categoryAxis, bars.valueAxis
    days.style = "stacked"
    # A dozen dates are as many as can be read.
    step = -(-len(report.days) // 12)
    days.categoryNames = [f"{day:%d %b}" if index % step == 0 else "" for index, day in enumerate(report.days)]
    highest = max(sum(count.states) for count in report.days.values())
    values.valueMin, values.valueStep = 0, _step(highest, 5)
    values.valueMax = values.valueStep * 5
    values.labelTextFormat = "%d"
    values.visibleGrid, values.gridStrokeColor = True, HexColor(RULE)
    values.visibleAxis = values.visibleTicks = days.visibleTicks = False
    days.strokeColor = HexColor(GREY)

    legend = Legend()
    legend.x, legend.y, legend.boxAnchor = left, 4, "sw"
    legend.alignment, legend.columnMaximum, legend.deltax = "right", 1, 80
    legend.dx = legend.dy = 7
    legend.strokeColor = None
    legend.colorNamePairs = [(HexColor(colour), name) for name, colour in STATES]

    for labels in (days.labels, values.labels, legend):
        labels.fontName, labels.fontSize, labels.fillColor = "Vera", 7, HexColor(GREY)
    return Drawing(WIDTH, height, bars, legend)


def make(report: Report, check: Callable[[], None]) -> bytes:
    """Lay the report out. Calls `check` for each page, and lets through what it raises."""

    def footer(canvas: Canvas, document: BaseDocTemplate) -> None:
        check()
        canvas.setFont("Vera", 7)
        canvas.setFillColor(HexColor(GREY))
        canvas.drawString(MARGIN, 10 * mm, report.made)
        canvas.drawRightString(A4[0] - MARGIN, 10 * mm, f"Page {document.page}")

    kinds = [[_wrap(name), *_words(count)] for name, count in report.kinds.items()]
    days_and_kinds = [[str(day), _wrap(name), *_words(count)] for (day, name), count in report.days_and_kinds.items()]
    story = [
        # A title is text: reportlab's markup in it would be obeyed, with pictures from anywhere.
        Paragraph(escape(in_font(report.title), quote=False), TITLE),
        Paragraph(report.subtitle, SMALL),
        Paragraph("By day", HEADING),
        _chart(report),
        CondPageBreak(40 * mm),
        Paragraph("By kind", HEADING),
        _table(
            ["Kind"],
            [*kinds, ["All", *_words(report.total)]],
            ("LINEABOVE", (0, -1), (-1, -1), 0.8, HexColor(INK)),
            ("FONT", (0, -1), (-1, -1), "Vera-Bold", 7.5),
        ),
        CondPageBreak(40 * mm),
        Paragraph("By day and kind", HEADING),
        _table(["Day", "Kind"], days_and_kinds) if days_and_kinds else Paragraph("No tasks in these days.", SMALL),
    ]
    content = BytesIO()
    document = SimpleDocTemplate(
        content,
        pagesize=A4,
        leftMargin=MARGIN - PADDING,
        rightMargin=MARGIN - PADDING,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=report.title,
        author="fba.stack",
    )
    document.build(story, onFirstPage=footer, onLaterPages=footer)
    return content.getvalue()
