"""Pieces of the reports' pages: the page itself, lists of facts, tables."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .report_style import style_sheet


def html_page(title: str, sections: Sequence[str]) -> str:
    """A page that needs nothing else."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style_sheet()}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def facts_list(items: Iterable[tuple[str, Any]]) -> str:
    """Names and what they are."""
    listed = (f"<li><span class='soft'>{name}</span> <b>{escape(str(text))}</b></li>" for name, text in items)
    return f"<ul class='facts'>{''.join(listed)}</ul>"


def html_table(headers: Sequence[str], rows: Sequence[Sequence[str]], tones: Sequence[str], kind: str = "") -> str:
    """A table.

    Args:
        headers: HTML.
        rows: HTML.
        tones: class of each row.
        kind: class of the table.
    """
    head = "".join(f"<th>{header}</th>" for header in headers)
    body = "".join(
        f"<tr class='{classes}'>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for row, classes in zip(rows, tones)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='wide {kind}'>{table}</div>"
