"""Drawings on a PDF's pages: each shape painted on reportlab's canvas."""

import io

from reportlab.lib.colors import HexColor
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable

from spheroidd.daemon.report import drawing, fonts
from spheroidd.daemon.report.drawing import Drawing

LEAST = 0.65  # of its size: a figure that becomes no smaller than that stays on the page that has room for it then


class Figure(Flowable):
    """A drawing on a page, from its upper left corner, made smaller where it is wider than its place.

    Or where it is somewhat higher than the room that a page has left, which would else stay blank.
    """

    def __init__(self, shown: Drawing) -> None:
        super().__init__()
        self._shown = shown
        self._scale = 1.0

    def wrap(self, available_width: float, available_height: float) -> tuple[float, float]:
        """The room it takes."""
        self._scale = min(1.0, available_width / self._shown.width)
        height = self._shown.height * self._scale
        if LEAST * height <= available_height < height:
            self._scale *= available_height / height
        return self._shown.width * self._scale, self._shown.height * self._scale

    def draw(self) -> None:
        """Paint it."""
        canvas: Canvas = self.canv
        canvas.saveState()
        canvas.translate(0, self._shown.height * self._scale)
        canvas.scale(self._scale, -self._scale)  # y downwards, as in the drawing
        for shape in self._shown.shapes:
            _paint(canvas, shape)
        canvas.restoreState()


def _paint(canvas: Canvas, shape: drawing.Shape) -> None:
    match shape:
        case drawing.Line():
            _pen(canvas, None, shape.ink, shape.width, shape.dash)
            canvas.line(shape.x1, shape.y1, shape.x2, shape.y2)
        case drawing.Box():
            stroke, fill = _pen(canvas, shape.fill, shape.ink, shape.line)
            canvas.rect(shape.x, shape.y, shape.width, shape.height, stroke, fill)
        case drawing.Dot():
            stroke, fill = _pen(canvas, shape.fill, shape.ink, shape.line)
            canvas.circle(shape.x, shape.y, shape.radius, stroke, fill)
        case drawing.Path():
            _way(canvas, shape)
        case drawing.Text():
            _letters(canvas, shape)
        case drawing.Picture():
            canvas.saveState()
            canvas.translate(shape.x, shape.y + shape.height)
            canvas.scale(1, -1)
            canvas.drawImage(ImageReader(io.BytesIO(shape.jpeg)), 0, 0, shape.width, shape.height)
            canvas.restoreState()


def _pen(
    canvas: Canvas, fill: str | None, ink: str | None, width: float, dash: tuple[float, float] | None = None
) -> tuple[int, int]:
    """Set colours and line; whether to stroke and to fill."""
    if fill:
        canvas.setFillColor(HexColor(fill))
    if ink:
        canvas.setStrokeColor(HexColor(ink))
        canvas.setLineWidth(width)
        canvas.setDash(list(dash) if dash else [])
    return int(ink is not None), int(fill is not None)


def _way(canvas: Canvas, shape: drawing.Path) -> None:
    if not shape.points:
        return
    canvas.saveState()
    stroke, fill = _pen(canvas, shape.fill, shape.ink, shape.width, shape.dash)
    canvas.setFillAlpha(shape.opacity)
    canvas.setStrokeAlpha(shape.opacity)
    way = canvas.beginPath()
    way.moveTo(*shape.points[0])
    for point in shape.points[1:]:
        way.lineTo(*point)
    if shape.closed:
        way.close()
    canvas.drawPath(way, stroke, fill)
    canvas.restoreState()


def _letters(canvas: Canvas, text: drawing.Text) -> None:
    font = fonts.BOLD if text.bold else fonts.PLAIN
    size = fonts.SIZE * text.size
    room = fonts.width(text.words, size, font)
    canvas.saveState()
    canvas.translate(text.x, text.y)
    canvas.rotate(-90 if text.turned else 0)
    canvas.scale(1, -1)
    canvas.setFillColor(HexColor(text.ink))
    at = {"start": 0.0, "middle": -room / 2, "end": -room}[text.anchor]
    for piece, name in fonts.runs(text.words, font):
        canvas.setFont(name, size)
        canvas.drawString(at, 0, piece)
        at += canvas.stringWidth(piece, name, size)
    canvas.restoreState()
