"""The names of Leica's Matrix Screener, old and new: `image--L0000--S00--U00--V00--J08--...--Z00--C00.ome.tif`.

Each letter stands before a number of two or more digits; the file's own letters win over those of its folders, the
last over the first. Letters: S slide, U well's column, V well's row (both from 0), X and Y field, J job, E repeat, L
loop, T time point, Z slice, C channel.
"""

import functools
import re
from dataclasses import dataclass, field

from spheroidd.acquisition.images.names.files import ImageName
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId

_LETTER = re.compile(r"--([A-Z])(\d{2,9})(?!\d)")
_IMAGE = re.compile(r"image--.*\.tiff?", re.IGNORECASE | re.DOTALL)
_METADATA = re.compile(r"(?:.*/)?metadata/image--[^/]*\.ome\.xml", re.IGNORECASE)


def leica_letters(path: str) -> dict[str, int]:
    """Every letter's number, the last one where a letter comes again.

    >>> leica_letters("chamber--U01--V02/image--L0000--U01--V02--Z13--C01.ome.tif")
    {'U': 1, 'V': 2, 'L': 0, 'Z': 13, 'C': 1}
    """
    folder, _, name = path.rpartition("/")
    letters = _letters_of_folder(folder).copy()
    letters.update((letter, int(digits)) for letter, digits in _LETTER.findall(name))
    return letters


@functools.lru_cache(maxsize=4096)  # a folder holds hundreds of images, and a plate a hundred thousand
def _letters_of_folder(folder: str) -> dict[str, int]:
    return {letter: int(digits) for letter, digits in _LETTER.findall(folder)}


def is_field_metadata(path: str) -> bool:
    """Whether it is the OME-XML that Matrix Screener writes beside a field's images."""
    return _METADATA.fullmatch(path) is not None


def image_beside(metadata: str, grammar: object) -> str:
    """What an image of the field that these metadata are of may be called, in a channel that the grammar knows."""
    channel = min(grammar.channels.values()) if isinstance(grammar, LeicaNames) else 0
    return metadata.replace("/metadata/", "/").removesuffix(".ome.xml") + f"--Z00--C{channel:02d}.ome.tif"


@dataclass(frozen=True, slots=True)
class LeicaNames:
    """Which of a Matrix Screener's images are the plate's. `fields` are (x, y): a well's stacks in that order."""

    channels: dict[str, int] = field(default_factory=lambda: {channel: at for at, channel in enumerate(CHANNELS)})
    fields: tuple[tuple[int, int], ...] = ((0, 0),)
    slide: int = 0
    job: int | None = None
    time_point: int = 0

    def read(self, path: str) -> ImageName | str | None:
        """See `NameGrammar`."""
        if not _IMAGE.fullmatch(path.rpartition("/")[2]):
            return None
        said = leica_letters(path)
        if "U" not in said or "V" not in said:
            return f"its name does not say {' and '.join(letter for letter in 'UV' if letter not in said)}"
        if said.get("S", self.slide) != self.slide:
            return f"slide S{said['S']:02d} is not source.slide = {self.slide}"
        if self.job is not None and said.get("J", self.job) != self.job:
            return f"job J{said['J']:02d} is not source.job = {self.job}"
        if said.get("T", self.time_point) != self.time_point:
            return f"time point T{said['T']:02d} is not source.time_point = {self.time_point}"
        place = said.get("X", 0), said.get("Y", 0)
        if place not in self.fields:
            return f"field X{place[0]:02d}--Y{place[1]:02d} is not among source.fields"
        channel = next((name for name, number in self.channels.items() if number == said.get("C", 0)), None)
        if channel is None:
            return f"channel C{said.get('C', 0):02d} is not among source.channels"
        try:
            well = WellId(said["V"], said["U"])
        except ConfigError as error:
            return error.what
        return ImageName(well, self.fields.index(place), channel, said.get("Z", 0))
