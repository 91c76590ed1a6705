"""A drawing as a PNG, for slides and for programs that read no SVG: the same shapes, painted by Pillow.

Painted larger and made smaller, which smooths every edge. Letters are those of a font that reportlab brings along, so
a picture looks the same on every computer; a letter that it lacks becomes an empty box.
"""

import io
from functools import cache
from pathlib import Path

import reportlab
from PIL import Image, ImageDraw, ImageFont

from spheroidd.daemon.report import drawing
from spheroidd.daemon.report.drawing import Drawing

WIDTH_PX = 1600
_FINER = 2  # times the picture's size, while it is painted
_FONTS = Path(reportlab.__file__).parent / "fonts"


def to_png(shown: Drawing, width_px: int = WIDTH_PX) -> bytes:
    """The bytes of a PNG file of that width, on white."""
    scale = _FINER * width_px / shown.width
    size = (_FINER * width_px, round(shown.height * scale))
    image = Image.new("RGB", size, "#ffffff")
    pen = ImageDraw.Draw(image)
    for shape in shown.shapes:
        _paint(image, pen, shape, scale)
    small = image.resize((width_px, round(size[1] / _FINER)), Image.Resampling.BOX)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


def _paint(image: Image.Image, pen: ImageDraw.ImageDraw, shape: drawing.Shape, k: float) -> None:
    match shape:
        case drawing.Line():
            ends = [(k * shape.x1, k * shape.y1), (k * shape.x2, k * shape.y2)]
            pen.line(ends, shape.ink, max(1, round(k * shape.width)))
        case drawing.Box():
            corners = (k * shape.x, k * shape.y, k * (shape.x + shape.width) - 1, k * (shape.y + shape.height) - 1)
            pen.rectangle(corners, shape.fill, shape.ink, max(1, round(k * shape.line)) if shape.ink else 0)
        case drawing.Dot():
            r = k * shape.radius
            place = (k * shape.x - r, k * shape.y - r, k * shape.x + r, k * shape.y + r)
            pen.ellipse(place, shape.fill, shape.ink, max(1, round(k * shape.line)) if shape.ink else 0)
        case drawing.Path():
            _way(pen, shape, k)
        case drawing.Text():
            _letters(image, pen, shape, k)
        case drawing.Picture():
            room = (round(k * shape.width), round(k * shape.height))
            inner = Image.open(io.BytesIO(shape.jpeg)).convert("RGB").resize(room)
            image.paste(inner, (round(k * shape.x), round(k * shape.y)))


def _way(pen: ImageDraw.ImageDraw, shape: drawing.Path, k: float) -> None:
    points = [(k * x, k * y) for x, y in shape.points]
    if shape.fill and len(points) > 2:
        pen.polygon(points, shape.fill)
    if shape.ink and len(points) > 1:
        pen.line([*points, points[0]] if shape.closed else points, shape.ink, max(1, round(k * shape.width)))


def _letters(image: Image.Image, pen: ImageDraw.ImageDraw, text: drawing.Text, k: float) -> None:
    font = _font("VeraBd.ttf" if text.bold else "Vera.ttf", max(1, round(k * text.size)))
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
    if not text.turned:
        pen.text((k * text.x, k * text.y), text.words, text.ink, font, anchor=anchor)
        return
    left, top, right, bottom = font.getbbox(text.words, anchor=anchor)
    sheet = Image.new("L", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(sheet).text((-left, -top), text.words, 255, font, anchor=anchor)
    place = (round(k * text.x + top), round(k * text.y - right))
    image.paste(text.ink, place, sheet.rotate(90, expand=True))


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONTS / name, size)
