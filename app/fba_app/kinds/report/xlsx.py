"""A report as an Excel workbook. All text is written as text, whatever it looks like: never as a formula or a link."""

from collections.abc import Iterable, Sequence
from datetime import date
from io import BytesIO

from xlsxwriter import Workbook
from xlsxwriter.chart import Chart
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from fba_app.kinds.report.data import GREY, HEADINGS, INK, RULE, STATES, Count, Report

A4 = 9
INTEGER, SHARE, SECONDS = "#,##0", "0.0%", '#,##0.00" s"'


class _Formats:
    def __init__(self, workbook: Workbook) -> None:
        self.title: Format = workbook.add_format({"bold": True, "font_size": 16, "font_color": INK})
        self.subtitle: Format = workbook.add_format({"font_color": GREY})
        self.heading: Format = workbook.add_format({"bold": True, "bottom": 1, "font_color": INK})
        self.day: Format = workbook.add_format({"num_format": "yyyy-mm-dd", "align": "left"})
        self.figures: list[Format] = [
            workbook.add_format({"num_format": each}) for each in (*[INTEGER] * (len(STATES) + 1), SHARE, SECONDS)
        ]


def _table(
    sheet: Worksheet,
    top: int,
    formats: _Formats,
    keys: Sequence[str],
    rows: Iterable[tuple[Sequence[str | date], Count]],
) -> None:
    for column, name in enumerate((*keys, *HEADINGS)):
        sheet.write_string(top, column, name, formats.heading)
    for row, (of_row, count) in enumerate(rows, top + 1):
        for column, key in enumerate(of_row):
            if isinstance(key, date):
                sheet.write_datetime(row, column, key, formats.day)
            else:
                sheet.write_string(row, column, key)
        for column, (figure, form) in enumerate(zip(count.figures, formats.figures, strict=True), len(keys)):
            if figure is not None:
                sheet.write_number(row, column, figure, form)
    sheet.set_column(0, len(keys) + len(HEADINGS) - 1, 14)


def _chart(workbook: Workbook, sheet: str, days: int) -> Chart:
    chart = workbook.add_chart({"type": "column", "subtype": "stacked"})
    for column, (name, colour) in enumerate(STATES, 2):
        chart.add_series(
            {
                "name": name,
                "categories": [sheet, 1, 0, days, 0],
                "values": [sheet, 1, column, days, column],
                "fill": {"color": colour},
                "gap": 30,
            }
        )
    chart.set_title({"name": "By day", "name_font": {"size": 12, "color": INK}})
    chart.set_x_axis({"date_axis": True, "num_format": "d mmm", "num_font": {"color": GREY}})
    chart.set_y_axis(
        {"min": 0, "num_font": {"color": GREY}, "major_gridlines": {"visible": True, "line": {"color": RULE}}}
    )
    chart.set_legend({"position": "bottom"})
    chart.set_size({"width": 900, "height": 320})
    return chart


def make(report: Report) -> bytes:
    """Write the report's workbook."""
    content = BytesIO()
    with Workbook(content, {"in_memory": True}) as workbook:
        workbook.set_properties({"title": report.title, "author": "fba.stack"})
        formats = _Formats(workbook)
        summary, days, days_and_kinds = (workbook.add_worksheet(name) for name in ("Summary", "Days", "Days and kinds"))

        summary.write_string(0, 0, report.title, formats.title)
        summary.write_string(1, 0, report.subtitle, formats.subtitle)
        summary.write_string(2, 0, report.made, formats.subtitle)
        kinds = [([name], count) for name, count in report.kinds.items()]
        _table(summary, 4, formats, ["Kind"], [*kinds, (["All"], report.total)])
        summary.insert_chart(4 + len(kinds) + 3, 0, _chart(workbook, "Days", len(report.days)))

        _table(days, 0, formats, ["Day"], (([day], count) for day, count in report.days.items()))
        _table(days_and_kinds, 0, formats, ["Day", "Kind"], report.days_and_kinds.items())
        for sheet in (days, days_and_kinds):
            sheet.freeze_panes(1, 0)
            sheet.repeat_rows(0)
        for sheet in (summary, days, days_and_kinds):
            sheet.hide_gridlines(2)
            sheet.set_landscape()
            sheet.set_paper(A4)
            sheet.fit_to_pages(1, 0)
    return content.getvalue()
