"""A figure as a few plain shapes, so that the HTML (SVG) and the PDF show the same one.

Lengths are points (1/72 inch) from the upper left corner, y downwards. This file writes SVG; `report_painter` paints
the same shapes on a page. Texts are escaped here and nowhere earlier.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from markupsafe import Markup, escape

INK, GREY, RULE, PALE = "#1b1f24", "#6b7280", "#c9ced6", "#eceef1"
BLUE, VERMILLION, ORANGE, GREEN = "#0072b2", "#d55e00", "#e69f00", "#009e73"  # Okabe and Ito: told apart by all eyes
NAVY = "#1f3a5f"
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    ink: str = INK
    width: float = 0.5
    dash: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `tip` is what a browser says of it under the pointer."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    ink: str | None = None
    line: float = 0.5
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A circle, hollow where `fill` is None."""

    x: float
    y: float
    radius: float
    fill: str | None = INK
    ink: str | None = None
    line: float = 0.6
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A polyline, closed and filled where asked for."""

    points: Sequence[Point]
    ink: str | None = INK
    width: float = 0.8
    fill: str | None = None
    opacity: float = 1.0
    closed: bool = False
    dash: tuple[float, float] | None = None
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; `turned` reads upwards. `x` is its start, middle or end, `y` its base line."""

    x: float
    y: float
    words: str
    size: float = 6.5
    anchor: Literal["start", "middle", "end"] = "start"
    ink: str = INK
    bold: bool = False
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG in a frame."""

    x: float
    y: float
    width: float
    height: float
    jpeg: bytes


Shape = Line | Box | Dot | Path | Text | Picture


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a sheet; `title` says in words what there is to see, for those who do not see it."""

    width: float
    height: float
    title: str
    shapes: tuple[Shape, ...]

    def __html__(self) -> Markup:
        return svg(self)


def enlarged(drawing: Drawing, k: float) -> Drawing:
    """The drawing k times as large, lines and letters too."""
    return replace(
        drawing,
        width=k * drawing.width,
        height=k * drawing.height,
        shapes=tuple(_enlarged(shape, k) for shape in drawing.shapes),
    )


_LENGTHS = ("x", "y", "x1", "y1", "x2", "y2", "width", "height", "line", "radius", "size")


def _enlarged(shape: Shape, k: float) -> Shape:
    new: dict[str, Any] = {name: k * getattr(shape, name) for name in _LENGTHS if hasattr(shape, name)}
    if isinstance(shape, Path):
        new["points"] = [(k * x, k * y) for x, y in shape.points]
    if isinstance(shape, Line | Path) and shape.dash:
        new["dash"] = (k * shape.dash[0], k * shape.dash[1])
    return replace(shape, **new)


def svg(drawing: Drawing) -> Markup:
    """The drawing as one <svg> element that fills the width it is given."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="figure">').format(
        _n(drawing.width), _n(drawing.height), drawing.title
    )
    return head + Markup("").join(map(_element, drawing.shapes)) + Markup("</svg>")


def svg_file(drawing: Drawing) -> str:
    """The drawing as a file of its own, for an <img>, which knows nothing of the page around it."""
    own = '<svg xmlns="http://www.w3.org/2000/svg" font-family="Helvetica, Arial, sans-serif"'
    return str(svg(drawing)).replace("<svg", own, 1)


def _element(shape: Shape) -> Markup:
    match shape:
        case Line():
            ends = "".join(f' {name}="{_n(getattr(shape, name))}"' for name in ("x1", "y1", "x2", "y2"))
            return Markup(f"<line{ends}{_stroke(shape.ink, shape.width, shape.dash)}/>")
        case Box():
            place = f' x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" height="{_n(shape.height)}"'
            paint = f"{_fill(shape.fill)}{_stroke(shape.ink, shape.line)}"
            return _with_tip("rect", place + paint, shape.tip)
        case Dot():
            place = f' cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="{_n(shape.radius)}"'
            return _with_tip("circle", f"{place}{_fill(shape.fill)}{_stroke(shape.ink, shape.line)}", shape.tip)
        case Path():
            way = f' d="{_way(shape.points)}{"Z" if shape.closed else ""}"'
            return _with_tip("path", way + _path_paint(shape), shape.tip)
        case Text():
            return _text(shape)
        case Picture():
            place = f'x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" height="{_n(shape.height)}"'
            data = base64.b64encode(shape.jpeg).decode("ascii")
            return Markup(f'<image {place} href="data:image/jpeg;base64,{data}"/>')


def _text(text: Text) -> Markup:
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    weight = ' font-weight="600"' if text.bold else ""
    turned = f' transform="rotate(-90 {_n(text.x)} {_n(text.y)})"' if text.turned else ""
    look = f' font-size="{_n(text.size)}" fill="{text.ink}"{anchor}{weight}{turned}'
    return Markup(f'<text x="{_n(text.x)}" y="{_n(text.y)}"{look}>{escape(text.words)}</text>')


def _with_tip(name: str, attributes: str, tip: str) -> Markup:
    if not tip:
        return Markup(f"<{name}{attributes}/>")
    return Markup(f"<{name}{attributes}><title>{escape(tip)}</title></{name}>")


def _path_paint(path: Path) -> str:
    fade = "" if path.opacity == 1 else f' opacity="{_n(path.opacity)}"'
    return _fill(path.fill) + _stroke(path.ink, path.width, path.dash) + fade


def _fill(fill: str | None) -> str:
    return f' fill="{fill or "none"}"'


def _stroke(ink: str | None, width: float, dash: tuple[float, float] | None = None) -> str:
    if ink is None:
        return ""
    dashes = f' stroke-dasharray="{_n(dash[0])} {_n(dash[1])}"' if dash else ""
    return f' stroke="{ink}" stroke-width="{_n(width)}"{dashes}'


def _way(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """Two digits after the point are a seventieth of a screen's pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
