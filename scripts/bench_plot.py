"""Bars of a bench as SVG, readable on light and on dark ground. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH = 760
LABEL = 300
VALUE = 110
ROW, GAP, TOP, BOTTOM = 26, 8, 44, 22
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .small { font-size: 11px; fill: #59636e }
  .ours { fill: #0969da } .other { fill: #8c959f } .grid { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 }
    .ours { fill: #4493f8 } .other { fill: #6e7681 } .grid { stroke: #3d444d }
  }
"""


@dataclass(frozen=True)
class Column:
    """A bar: its name, its value, whether it is ours."""

    name: str
    value: float
    ours: bool = False


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def bars(title: str, unit: str, columns: list[Column], note: str) -> str:
    """Horizontal bars on a logarithmic scale: values differ by thousands."""
    low = 10 ** math.floor(math.log10(max(min(column.value for column in columns), 1e-6)))
    high = 10 ** math.ceil(math.log10(max(column.value for column in columns) * 1.001))
    room = WIDTH - LABEL - VALUE
    decades = max(1, round(math.log10(high / low)))

    def x_of(value: float) -> float:
        return LABEL + room * math.log10(max(value, low) / low) / decades

    height = TOP + len(columns) * (ROW + GAP) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
        f'<text class="small" x="8" y="36">{escape(note)}</text>',
    ]
    bottom = TOP + len(columns) * (ROW + GAP)
    for decade in range(decades + 1):
        x = x_of(low * 10**decade)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        text = f"{number(low * 10**decade)} {unit}"
        parts.append(f'<text class="small" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{escape(text)}</text>')
    for index, column in enumerate(columns):
        y = TOP + GAP / 2 + index * (ROW + GAP)
        kind = "ours" if column.ours else "other"
        end = max(x_of(column.value), LABEL + 2)
        parts.append(f'<text x="{LABEL - 8}" y="{y + 18:.1f}" text-anchor="end">{escape(column.name)}</text>')
        parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y:.1f}" width="{end - LABEL:.1f}" height="{ROW}" rx="3"/>')
        text = f"{number(column.value)} {unit}"
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 18:.1f}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>", ""])
