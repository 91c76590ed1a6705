"""The figure of the stripes' death: modulation and contrast to noise by depth, and how the slices were made."""

import math
from collections.abc import Callable, Sequence

from spheroidd.daemon.analysis.sim_depth import ChannelDepth, SliceDepth
from spheroidd.daemon.report.axes import Axis, linear_axis, log_axis
from spheroidd.daemon.report.drawing import (
    GREEN,
    GREY,
    PALE,
    RULE,
    VERMILLION,
    Box,
    Dot,
    Drawing,
    Line,
    Path,
    Point,
    Shape,
    Text,
)
from spheroidd.protocols.phrase import all_of, phrase
from spheroidd.protocols.sim_pattern import ALIVE
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL

WIDTH, NARROW, TOP, PLOT, FOOT = 482.0, 240.0, 16.0, 112.0, 26.0
LEFT, GAP, RIGHT = 30.0, 44.0, 6.0
BAR, BAR_GAP, LINE = 8.0, 4.0, 9.0
ALIVE_CONTRAST = math.sqrt(ALIVE)
INKS = {LIVE_CHANNEL: GREEN, DEAD_CHANNEL: VERMILLION}
_METHODS = (("sim", 1.0), ("partial", 0.45))
InWords = Callable[[str], str]


def depth_plot(channels: Sequence[ChannelDepth], *, narrow: bool = False, in_words: InWords = str) -> Drawing | None:
    """Of a plate's stacks together, or of one; None where no slice was made of raw frames.

    Two plots side by side over a text column; `narrow` puts them one above the other. `in_words` puts a phrase into
    another language.
    """
    seen = [one for one in channels if one.slices]
    if not seen:
        return None
    width = NARROW if narrow else WIDTH
    panel = width - LEFT - RIGHT if narrow else (width - LEFT - GAP - RIGHT) / 2
    lefts = (LEFT, LEFT) if narrow else (LEFT, LEFT + panel + GAP)
    bars = TOP + PLOT + FOOT
    below = bars + len(seen) * (BAR + BAR_GAP) + (len(seen) * LINE if narrow else 0)
    tops = (TOP, below + TOP) if narrow else (TOP, TOP)
    farthest = max(one.slices[-1].depth_um for one in seen) or 1.0
    across = [linear_axis(0.0, farthest, left, left + panel, 6) for left in lefts]
    modulation, contrast = _modulation_axis(seen, tops[0]), _contrast_axis(seen, tops[1])
    shapes = [*_frame(across[0], modulation, phrase("stripes-modulation"), in_words)]
    shapes += _frame(across[1], contrast, phrase("stripes-contrast"), in_words)
    shapes += _threshold(across[1], contrast, in_words)
    for number, one in enumerate(seen):
        shapes += _curve(one, across[0], modulation, "modulation", in_words)
        shapes += _curve(one, across[1], contrast, "contrast", in_words)
        shapes += _methods(one, across[0], bars + number * (BAR + BAR_GAP), in_words)
        at = (LEFT, below - (len(seen) - number) * LINE) if narrow else (lefts[1], bars + number * (BAR + BAR_GAP))
        shapes.append(Text(at[0], at[1] + BAR - 1.6, in_words(_reach(one)), 6.2, ink=_ink(one)))
    height = (tops[1] + PLOT + FOOT if narrow else below) + 2
    said = phrase("stripes-by-depth", what=all_of(map(_reach, seen)))
    return Drawing(width, height, in_words(said), tuple(shapes))


def _modulation_axis(seen: Sequence[ChannelDepth], top: float) -> Axis:
    highest = max((one.modulation or 0.0 for channel in seen for one in channel.slices), default=0.0)
    return linear_axis(0.0, max(0.2, highest), top + PLOT, top, 4)


def _contrast_axis(seen: Sequence[ChannelDepth], top: float) -> Axis:
    found = [one.contrast for channel in seen for one in channel.slices if one.contrast > 0]
    return log_axis(max(min([ALIVE_CONTRAST, *found]), 0.3), max([ALIVE_CONTRAST, *found]), top + PLOT, top)


def _threshold(x: Axis, y: Axis, in_words: InWords) -> list[Shape]:
    at = y.at(ALIVE_CONTRAST)
    words = in_words(phrase("stripes-alive-above"))
    return [Line(x.start, at, x.stop, at, GREY, 0.5, (2, 2)), Text(x.stop, at - 2.5, words, 5.5, "end", GREY)]


def _ink(one: ChannelDepth) -> str:
    return INKS.get(one.channel, GREY)


def _frame(x: Axis, y: Axis, name: str, in_words: InWords) -> list[Shape]:
    shapes: list[Shape] = [Line(x.start, y.start, x.start, y.stop, GREY), Line(x.start, y.start, x.stop, y.start, GREY)]
    for value, label in y.ticks:
        if y.stop - 0.1 <= y.at(value) <= y.start + 0.1:
            shapes.append(Line(x.start, y.at(value), x.stop, y.at(value), PALE))
            shapes.append(Text(x.start - 3.5, y.at(value) + 2, label, 5.5, "end", GREY))
    for value, label in x.ticks:
        shapes.append(Line(x.at(value), y.start, x.at(value), y.start + 2, GREY))
        shapes.append(Text(x.at(value), y.start + 9, label, 5.5, "middle", GREY))
    shapes.append(Text((x.start + x.stop) / 2, y.start + 18, in_words(phrase("stripes-depth")), 6, "middle", GREY))
    shapes.append(Text(x.start, y.stop - 6, in_words(name), 6.5, bold=True))
    return shapes


def _curve(one: ChannelDepth, x: Axis, y: Axis, name: str, in_words: InWords) -> list[Shape]:
    """A line through the slices that have a value, broken where they have none; a dot for each."""
    ink, shapes, run = _ink(one), list[Shape](), list[Point]()
    for piece in one.slices:
        value = getattr(piece, name)
        if value is None or (y.log and value <= 0):
            run = _drawn(run, ink, shapes)
            continue
        at = x.at(piece.depth_um), min(max(y.at(value), y.stop), y.start)
        run.append(at)
        where = {"channel": one.channel, "um": f"{piece.depth_um:g}", "value": f"{value:.2f}", "made": _made(piece)}
        tip = phrase(f"stripes-{name}-at", **where)
        shapes.append(Dot(*at, 1.2, ink, "#ffffff", 0.3, in_words(tip)))
    _drawn(run, ink, shapes)
    return shapes


def _drawn(run: list[Point], ink: str, shapes: list[Shape]) -> list[Point]:
    """Put the line under what is there; an empty one to go on with."""
    if len(run) > 1:
        shapes.insert(0, Path(tuple(run), ink, 1.0))
    return []


def _methods(one: ChannelDepth, x: Axis, top: float, in_words: InWords) -> list[Shape]:
    """A bar along the depth: filled where slices are SIM, pale where some angles are, empty where widefield."""
    ink = _ink(one)
    shapes: list[Shape] = [Text(x.start - 3.5, top + BAR - 2, one.channel, 5.5, "end", ink)]
    step = one.slices[1].depth_um - one.slices[0].depth_um if len(one.slices) > 1 else x.high
    for piece in one.slices:
        left, right = x.at(max(piece.depth_um - step / 2, x.low)), x.at(min(piece.depth_um + step / 2, x.high))
        at = top + BAR
        for name, strength in _METHODS:
            tall = BAR * getattr(piece, name)
            if tall > 0:
                at -= tall
                shapes.append(Box(left, at, right - left, tall, _mixed(ink, strength), tip=in_words(_made(piece))))
    shapes.append(Box(x.start, top, x.stop - x.start, BAR, None, RULE, 0.4))
    return shapes


def _reach(one: ChannelDepth) -> str:
    reach, last = one.sim_up_to_um, one.slices[-1].depth_um
    if reach is None:
        return phrase("sim-nowhere", channel=one.channel)
    if reach >= last:
        return phrase("sim-everywhere", channel=one.channel)
    return phrase("sim-up-to", channel=one.channel, um=f"{reach:.1f}", last=f"{last:.1f}")


def _made(piece: SliceDepth) -> str:
    shares = {name: f"{100 * getattr(piece, name):.0f}" for name in ("sim", "partial", "widefield")}
    return phrase("sim-shares", **shares)


def _mixed(ink: str, strength: float) -> str:
    """The colour on white."""
    parts = bytes.fromhex(ink[1:])
    return "#" + bytes(round(255 - strength * (255 - part)) for part in parts).hex()
