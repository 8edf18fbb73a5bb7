"""Writes a comparison of methods as Markdown, LaTeX, CSV or JSON."""

import csv
import io
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from kpac.evaluation.statistics import LEVEL, RESAMPLES, SEED
from kpac.files import dump_json, write_text
from kpac.reporting.comparison import Column, Row, Table, title_of
from kpac.reporting.units import METRICS, cell, signed, unsigned_zero
from kpac.text import markdown_table


def markdown(table: Table) -> str:
    """Markdown table: the best value bold, the second best underlined; published rows are marked by a dagger."""
    ranks = table.ranks()
    titles = {column.over for column in table.columns if column.over}
    header = [
        f"{column.over}: {title_of(column)}" if column.over and len(titles) > 1 else title_of(column)
        for column in table.columns
    ]
    rows = []
    for index, row in enumerate(table.rows):
        cells = [
            _marked(_cell(column, row), ranks.get((index, column)), "**{}**", "<u>{}</u>") for column in table.columns
        ]
        protocol = [row.protocol] if table.names_protocols else []
        rows.append([row.label + (" †" if row.source else ""), *protocol, *cells])
    text = markdown_table(["method", *(["protocol"] if table.names_protocols else []), *header], rows)
    parts = [text, "\n".join(_notes(table, "† "))]
    if table.tests:
        parts += [markdown_table(TEST_HEADER, _test_rows(table)), TEST_NOTE]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """LaTeX table for the package booktabs: the best value bold, the second best underlined.

    Notes follow the tabular; inside it, a long note would widen the table.
    """
    ranks = table.ranks()
    lead = ["Method", *(["Protocol"] if table.names_protocols else [])]
    over, rules, place = ["" for _ in lead], [], len(lead) + 1
    for title, columns in groupby(table.columns, key=lambda column: column.over):
        count = len(list(columns))
        over.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{place}-{place + count - 1}}}")
        place += count
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{'l' * len(lead)}{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(over) + r" \\",
        " ".join(rules),
        " & ".join([*lead, *(escape(title_of(column)) + _arrow(column) for column in table.columns)]) + r" \\",
        r"\midrule",
    ]
    published = [bool(row.source) for row in table.rows]
    for index, row in enumerate(table.rows):
        if index and published[index - 1] != published[index]:
            lines.append(r"\midrule")
        cells = [
            _marked(
                _cell(column, row).replace("-", "--" if column not in row.values else "$-$").replace("±", r"$\pm$"),
                ranks.get((index, column)),
                r"\textbf{{{}}}",
                r"\underline{{{}}}",
            )
            for column in table.columns
        ]
        protocol = [escape(row.protocol)] if table.names_protocols else []
        label = escape(row.label) + (r"$^\dagger$" if row.source else "")
        lines.append(" & ".join([label, *protocol, *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", *_latex_notes(_notes(table, "† "))]
    if table.tests:
        lines += [
            r"\par\bigskip",
            rf"\begin{{tabular}}{{l{'r' * (len(TEST_HEADER) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape, TEST_HEADER)) + r" \\",
            r"\midrule",
            *(" & ".join(escape(cell).replace("-", "$-$") for cell in row) + r" \\" for row in _test_rows(table)),
            r"\bottomrule",
            r"\end{tabular}",
            *_latex_notes([TEST_NOTE]),
        ]
    return "\n".join(lines) + "\n"


def _latex_notes(notes: list[str]) -> list[str]:
    return [r"\par\smallskip", r"{\footnotesize\raggedright", *(escape(note) + r"\par" for note in notes), "}"]


def csv_text(table: Table) -> str:
    """CSV table for spreadsheets: unrounded numbers, one line per method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spread = [column for column in table.columns if any(column in row.deviations for row in table.rows)]
    names = [" ".join(filter(None, (column.over, column.quantity))) for column in table.columns]
    names += [" ".join(filter(None, (column.over, column.quantity, "deviation"))) for column in spread]
    writer.writerow(["method", "published", "protocol", "source", *names])
    for row in table.rows:
        values = [row.printed.get(column, row.values.get(column, "")) for column in table.columns]
        values += [row.deviations.get(column, "") for column in spread]
        writer.writerow([row.label, "yes" if row.source else "no", row.protocol, row.source or "", *values])
    return text.getvalue()


def json_text(table: Table) -> str:
    """JSON for programs: a list of methods, each with values by data set and quantity; costs have the key ""."""
    rows = []
    for row in table.rows:
        values: dict[str, dict[str, Any]] = {}
        for column, value in row.values.items():
            values.setdefault(column.over, {})[column.quantity] = value
            if column in row.deviations:
                values[column.over][f"{column.quantity} deviation"] = row.deviations[column]
            if column in row.intervals:
                values[column.over][f"{column.quantity} interval"] = list(row.intervals[column])
        rows.append(
            {
                "method": row.label,
                "published": bool(row.source),
                "source": row.source,
                "protocol": row.protocol,
                "values": values,
            }
        )
    tests = [{**vars(test), "difference": vars(test.difference)} for test in table.tests]
    return dump_json({"rows": rows, "notes": table.notes, "tests": tests}, indent=2) + "\n"


TEST_HEADER = ["compared image by image", "metric", "difference", f"{LEVEL:.0%} interval", "p", "images improved"]
TEST_NOTE = (
    f"Differences are means over images; intervals and two-sided p values by percentile bootstrap of the paired "
    f"differences, {RESAMPLES:,} resamples, seed {SEED}, not corrected for several comparisons."
)


def _test_rows(table: Table) -> list[list[str]]:
    several = len({test.over for test in table.tests}) > 1
    rows = []
    for test in table.tests:
        found = test.difference
        low, high, mean = (signed(test.quantity, value) for value in (found.low, found.high, found.mean))
        where = f", {test.over}" if several else ""
        rows.append(
            [
                f"{test.label} - {test.other}{where}",
                METRICS[test.quantity].title,
                mean,
                f"{low} to {high}",
                f"{found.p:.4f}",
                f"{found.improved} of {found.images}",
            ]
        )
    return rows


FORMATS = {"markdown": markdown, "latex": latex, "csv": csv_text, "json": json_text}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}


def write_table(table: Table, folder: Path) -> list[Path]:
    """Writes a table in every format; returns the files."""
    paths = {folder / f"table{suffix}": name for suffix, name in SUFFIXES.items()}
    for path, name in paths.items():
        write_text(path, FORMATS[name](table))
    return list(paths)


def escape(text: str) -> str:
    """Escapes plain text for LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"±": r"$\pm$", "†": r"$^\dagger$"}
    return re.sub(r"[\\~^&%$#_{}±†]", lambda match: special.get(match[0], "\\" + match[0]), text)


def _cell(column: Column, row: Row) -> str:
    value = row.values.get(column)
    if column.quantity == "difference":
        return "-" if value is None else unsigned_zero(f"{value:+.2f}")
    if column in row.printed:
        return row.printed[column]
    deviation = f" ± {cell(column.quantity, row.deviations[column])}" if column in row.deviations else ""
    ends = row.intervals.get(column)
    interval = f" [{cell(column.quantity, ends[0])}, {cell(column.quantity, ends[1])}]" if ends else ""
    return cell(column.quantity, value) + deviation + interval


def _marked(text: str, rank: int | None, best: str, second: str) -> str:
    return text if rank is None else (best, second)[rank].format(text)


def _arrow(column: Column) -> str:
    if column.quantity not in METRICS:
        return ""
    return r" $\uparrow$" if METRICS[column.quantity].better == "higher" else r" $\downarrow$"


def _notes(table: Table, mark: str) -> list[str]:
    return [mark + note if note.startswith("Published") else note for note in table.notes]
