"""Plain SVG text: a frame with axes, a grid, a legend, lines and a footer, readable on light and on dark ground.

Units: pixels of the drawing, which scales; values are what the scales say.
Method: colours are classes, and a style sheet inside the drawing changes them where the reader prefers dark, which
browsers heed in an ``<img>`` too. Colours are after Okabe and Ito's (https://jfly.uni-koeln.de/color/), which those
who see few colours can tell apart; dashes tell on paper.
"""

import re
from collections.abc import Callable, Sequence
from html import escape
from textwrap import wrap
from typing import Final

from msgspec import Struct

WIDTH: Final = 960
LEFT: Final = 76
RIGHT: Final = 34
_PLOT_HEIGHT: Final = 340
_LINE_PX: Final = 18
_CHAR_PX: Final = 7.1  # a character of 13 px text, on average; widths need not be exact
_FOOTER_CHARS: Final = 125
_TITLE_CHARS: Final = 88
_SUBTITLE_CHARS: Final = 120
_SWATCH_PX: Final = 30
_GAP_PX: Final = 22
_LONGEST_NAME: Final = 110  # what fits into a row of the legend
COLOURS: Final = 6
_LIGHT: Final = ("#0072b2", "#d55e00", "#009e73", "#b3428f", "#8a6d00", "#333333")
_DARK: Final = ("#56b4e9", "#ff8c42", "#2fd3a2", "#e58fc4", "#f0e442", "#dddddd")
_DASHES: Final = ("", "9 3", "2 3", "9 3 2 3", "5 5", "14 4")
_NO_XML: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Point = tuple[float, float]
Place = Callable[[float], float]
"""Where a value stands, from 0 (left, bottom) to 1 (right, top)."""


class Tick(Struct, frozen=True):
    """A mark on an axis: where, from 0 to 1, and what is written there."""

    at: float
    label: str


class Axis(Struct, frozen=True):
    """An axis: what it measures, with its unit; its marks; and where values stand on it."""

    title: str
    ticks: tuple[Tick, ...]
    place: Place


class Curve(Struct, frozen=True):
    """One line of a drawing. Those of the same ``colour`` belong together; a thin one is what another is held to."""

    name: str
    points: Sequence[Point]
    colour: int
    is_thin: bool = False


def drawing(curves: Sequence[Curve], *, across: Axis, up: Axis, title: str, subtitle: str, footer: str) -> str:
    """Draw curves into a frame, as the text of an SVG file."""
    titles = wrap(title, _TITLE_CHARS, break_on_hyphens=False)
    heads = [*titles, *wrap(subtitle, _SUBTITLE_CHARS, break_on_hyphens=False)]
    legend, legend_rows = _legend(curves, top=24 + _LINE_PX * len(heads))
    top = 24 + _LINE_PX * (len(heads) + legend_rows) + 26
    footers = [part for line in footer.splitlines() for part in wrap(line, _FOOTER_CHARS, break_on_hyphens=False)]
    bottom = top + _PLOT_HEIGHT
    height = bottom + 56 + 15 * len(footers)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_text(title)}">',
        f"<title>{_text(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        *(
            _write(line, x=LEFT, y=28 + _LINE_PX * row, kind="head" if row < len(titles) else "small")
            for row, line in enumerate(heads)
        ),
        *legend,
        *_frame(across, up, top=top, bottom=bottom),
        *(_curve(curve, across, up, top=top, bottom=bottom) for curve in curves),
        *(_write(line, x=LEFT, y=bottom + 58 + 15 * number, kind="mono") for number, line in enumerate(footers)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _style() -> str:
    def colours(palette: Sequence[str]) -> str:
        return "".join(f".c{number}{{stroke:{colour}}}" for number, colour in enumerate(palette))

    dashes = "".join(f".c{number}{{stroke-dasharray:{dash}}}" for number, dash in enumerate(_DASHES) if dash)
    return (
        "text{font:13px system-ui,sans-serif;fill:#222}.head{font-size:16px;font-weight:600}.small,.tick{fill:#555}"
        ".mono{font:11px ui-monospace,monospace;fill:#555}.ground{fill:#fff}"
        "path{fill:none;stroke-width:1.8;stroke-linejoin:round}"
        ".grid,.axis{stroke-width:1}.grid{stroke:#ddd}.axis{stroke:#777}"
        f"{colours(_LIGHT)}{dashes}"
        ".thin{stroke-width:1;stroke-dasharray:1 3}"
        "@media (prefers-color-scheme:dark){text{fill:#eee}.small,.tick,.mono{fill:#aaa}.ground{fill:#161b22}"
        f".grid{{stroke:#333}}.axis{{stroke:#888}}{colours(_DARK)}}}"
    )


def _legend(curves: Sequence[Curve], *, top: int) -> tuple[list[str], int]:
    """Lay the names out in rows; also how many rows that took."""
    parts: list[str] = []
    x, row = float(LEFT), 0
    for curve in curves:
        name = curve.name if len(curve.name) <= _LONGEST_NAME else f"{curve.name[: _LONGEST_NAME - 1]}…"
        width = _SWATCH_PX + 6 + len(name) * _CHAR_PX
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, row = float(LEFT), row + 1
        y = top + 10 + row * _LINE_PX
        parts.append(f'<path class="{_classes(curve)}" d="M{x:.0f} {y - 4}h{_SWATCH_PX}"/>')
        parts.append(_write(name, x=x + _SWATCH_PX + 6, y=y, kind="name"))
        x += width + _GAP_PX
    return parts, row + 1 if curves else 0


def _frame(across: Axis, up: Axis, *, top: int, bottom: int) -> list[str]:
    parts = [_write(up.title, x=8, y=top - 12, kind="small")]
    for tick in up.ticks:
        y = _number(bottom - tick.at * (bottom - top))
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(_write(tick.label, x=LEFT - 8, y=float(y) + 4, kind="tick", anchor="end"))
    for tick in across.ticks:
        x = _number(LEFT + tick.at * (WIDTH - LEFT - RIGHT))
        parts.append(f'<path class="grid" d="M{x} {top}V{bottom}"/>')
        parts.append(_write(tick.label, x=float(x), y=bottom + 18, kind="tick", anchor="middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}"/>')
    parts.append(_write(across.title, x=(LEFT + WIDTH - RIGHT) / 2, y=bottom + 36, kind="small", anchor="middle"))
    return parts


def _curve(curve: Curve, across: Axis, up: Axis, *, top: int, bottom: int) -> str:
    places = [
        f"{_number(LEFT + across.place(x) * (WIDTH - LEFT - RIGHT))} {_number(bottom - up.place(y) * (bottom - top))}"
        for x, y in curve.points
    ]
    path = f"M{'L'.join(places)}" if places else ""
    if len(places) == 1:
        path += "h3"  # a line needs two ends: so short a one shows as a dot
    return f'<path class="{_classes(curve)}" d="{path}"/>'


def _classes(curve: Curve) -> str:
    return f"c{curve.colour % COLOURS}{' thin' if curve.is_thin else ''}"


def _write(text: str, *, x: float, y: float, kind: str, anchor: str = "start") -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{_number(x)}" y="{_number(y)}"{where}>{_text(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    """Make text fit for XML, which has no control characters."""
    return escape(_NO_XML.sub("\ufffd", text))
