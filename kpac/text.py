"""Text for people: tables, sizes, names of files."""

import re


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table with columns of equal width; all columns but the first are right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = (
        "|" + "|".join("-" * (width + 2) if not i else "-" * (width + 1) + ":" for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(header), rule, *map(line, rows)])


def bytes_text(count: int) -> str:
    """Formats a number of bytes with a suitable unit: 940 bytes, 3.1 MB, 7.9 GB."""
    if count < 1000:
        return f"{count} bytes"
    unit, factor = next((pair for pair in (("kB", 1e3), ("MB", 1e6)) if count < 1000 * pair[1]), ("GB", 1e9))
    return f"{count / factor:.1f} {unit}"


def file_name(label: str) -> str:
    """Turns a label into a file name of letters, digits, "-", "." and "_"; "unnamed" if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-._") or "unnamed"
