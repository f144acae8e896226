"""Draw for slides: pictures as SVG text that needs no other file, font or script.

Colours tell orders apart and signs repeat what they say: a lie has a red border and `!`, silence a dashed
border and `∅`, a refused message a grey one and `×`. Read next: `svg_battle` for the pictures of one battle,
`html` for a page of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bft.generals.certificates import Certificate, Method

FONT = "Helvetica, Arial, sans-serif"
INK, FAINT, PAPER, RED = "#1f2933", "#b8c2cc", "#ffffff", "#c81e1e"
PALETTE = ("#b45309", "#1d4ed8", "#047857", "#7c3aed", "#be185d", "#0e7490", "#4d7c0f", "#9a3412")


@dataclass(frozen=True, slots=True)
class Label:
    """Write text: at a point, of a size, anchored at its start, middle or end."""

    x: float
    y: float
    text: str
    size: int = 13
    anchor: str = "middle"
    fill: str = INK
    weight: str = "normal"

    def draw(self) -> str:
        """Return the element."""
        return (
            f'<text x="{self.x:.1f}" y="{self.y:.1f}" font-size="{self.size}" text-anchor="{self.anchor}" '
            f'fill="{self.fill}" font-weight="{self.weight}">{escape(self.text)}</text>'
        )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = INK, extra: str = "") -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" {extra}/>'


def box(x: float, y: float, width: float, height: float, fill: str, extra: str = "") -> str:
    """Return a rectangle with round corners."""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} rx="5" fill="{fill}" {extra}/>'


def document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """Return a whole picture on white paper."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="{FONT}" role="img">\n<title>{escape(title)}</title>\n'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def boundary_picture(title: str, cells: Sequence[Certificate], subtitle: str) -> str:
    """Draw the boundary as a heat map; each cell carries its method and how many runs stand behind it."""
    ns = sorted(dict.fromkeys(certificate.n for certificate in cells))
    ms = sorted(dict.fromkeys(certificate.m for certificate in cells))
    wide, high, left, top = 96, 52, 70, 84
    parts = [
        Label(left, 30, title, 18, "start", weight="bold").draw(),
        Label(left, 52, subtitle, 12, "start").draw(),
    ]
    parts += [Label(left + wide * (place + 0.5), top - 8, f"n = {n}").draw() for place, n in enumerate(ns)]
    parts += [
        Label(left - 10, top + high * (place + 0.5) + 4, f"m = {m}", anchor="end").draw()
        for place, m in enumerate(ms)
    ]
    for certificate in cells:
        x, y = left + wide * ns.index(certificate.n), top + high * ms.index(certificate.m)
        fill = "#d1fae5" if certificate.holds else "#fee2e2"
        parts.append(box(x + 2, y + 2, wide - 4, high - 4, fill))
        sign = "✓" if certificate.holds else "✗"
        sampled = " ~" if certificate.method is Method.SAMPLED else ""
        colour = "#065f46" if certificate.holds else "#991b1b"
        parts.append(Label(x + wide / 2, y + 24, sign + sampled, 17, fill=colour, weight="bold").draw())
        parts.append(Label(x + wide / 2, y + 41, short_number(certificate.runs), 10, fill=INK).draw())
    return document(left + wide * len(ns) + 20, top + high * len(ms) + 20, title, parts)


def short_number(number: int) -> str:
    """Return a number in at most seven characters: `81`, rounded to `4.1e5` beyond 99 999."""
    if number < 100_000:
        return f"{number:,}".replace(",", " ")
    digits = str(round(number, 2 - len(str(number))))
    return f"{digits[0]}.{digits[1]}e{len(digits) - 1}"


@dataclass(frozen=True, slots=True)
class Series:
    """Hold one curve."""

    name: str
    points: tuple[tuple[float, float], ...]


def curves(title: str, x_title: str, y_title: str, series: Sequence[Series]) -> str:
    """Draw curves over a logarithmic vertical axis; points at or below zero are left out."""
    width, height, left, top, bottom, right = 760, 440, 80, 60, 60, 190
    drawn = [(one.name, [(x, math.log10(y)) for x, y in one.points if y > 0]) for one in series]
    xs = [x for _, points in drawn for x, _ in points] or [0.0, 1.0]
    ys = [y for _, points in drawn for _, y in points] or [0.0, 1.0]
    low, high = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (width - left - right)
        return left + across, height - bottom - (y - low) / (high - low) * (height - top - bottom)

    parts = [Label(left, 30, title, 18, "start", weight="bold").draw()]
    step = max(1, (high - low) // 8)
    for power in range(low, high + 1, step):
        _, y = at(x_low, power)
        parts.append(line(left, y, width - right, y, FAINT, 'stroke-width="0.6"'))
        parts.append(
            Label(left - 8, y + 4, f"1e{power}" if abs(power) > 3 else f"{10.0**power:g}", 11, "end").draw()
        )
    for x_tick in sorted(dict.fromkeys(xs)):
        parts.append(Label(at(x_tick, low)[0], height - bottom + 18, f"{x_tick:g}", 11).draw())
    parts.append(Label((left + width - right) / 2, height - 16, x_title).draw())
    parts.append(Label(10, top - 12, y_title, 11, "start").draw())
    for place, (name, points) in enumerate(drawn):
        colour = PALETTE[place % len(PALETTE)]
        placed = [at(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y in placed]
        row = top + 14 + 22 * place
        parts.append(
            line(width - right + 14, row - 4, width - right + 34, row - 4, colour, 'stroke-width="3"')
        )
        parts.append(Label(width - right + 40, row, name, 12, "start").draw())
    return document(width, height, title, parts)
