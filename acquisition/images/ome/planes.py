"""What OME-XML says of each plane of an image, in the words of all its schemas.

Since 2015 each number has a unit. Before, times were seconds, and a stage's position was in a "reference frame", which
is no length (Leica writes metres there, and does not say so). Before 2010 it was said in elements of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from spheroidd.acquisition.images.metadata.image_metadata import (
    Facts,
    elapsed,
    exposure,
    fraction,
    position,
    text,
    wavelength,
)

_DATES = ("AcquisitionDate", "AcquiredDate", "CreationDate")  # one thing: it was renamed in 2010 and in 2012
_NOTHING: Facts = {}


@dataclass(frozen=True, slots=True)
class OmePlanes:
    """What is said of single planes of one time point, by (channel, z); of whole channels; and of the image."""

    planes: Mapping[tuple[int, int], Facts] = field(default_factory=lambda: MappingProxyType({}))
    channels: tuple[Facts, ...] = ()
    image: Facts = field(default_factory=dict)

    def facts(self, channel: int, z: int) -> Facts:
        """All that is known of one plane; nothing where nothing is."""
        of_channel = self.channels[channel] if channel < len(self.channels) else _NOTHING
        return {**self.image, **of_channel, **self.planes.get((channel, z), _NOTHING)}


def read_planes(root: Any, image: Any, time_point: int = 0, *, of_one: bool) -> OmePlanes:
    """Read what an Image element says of its planes of one time point.

    `of_one`: it has a single plane, whose element may count it as one of the whole field; where there are several
    elements nobody knows which one is meant, and none is believed.
    """
    pixels = image.find("{*}Pixels")
    elements = pixels.findall("{*}Plane")
    if of_one:
        planes = {(0, 0): _of_plane(elements[0])} if len(elements) == 1 else {}
    else:
        places = ((tuple(_index(plane, axis) for axis in "TCZ"), plane) for plane in elements)
        planes = {(c, z): _of_plane(plane) for (t, c, z), plane in places if t == time_point and c >= 0 and z >= 0}
    date = next((said for name in _DATES if (said := image.findtext(f"{{*}}{name}"))), None)
    channels = tuple(_of_channel(root, channel) for channel in pixels.findall("{*}Channel"))
    return OmePlanes(MappingProxyType(planes), channels, text("instrument_time", date))


def _of_plane(plane: Any) -> Facts:
    times, stage = plane.find("{*}PlaneTiming"), plane.find("{*}StagePosition")
    times, stage = plane if times is None else times, plane if stage is None else stage
    facts: Facts = {}
    for axis in "XYZ":
        facts |= position(axis.lower(), stage.get(f"Position{axis}"), stage.get(f"Position{axis}Unit"))
    facts |= exposure(times.get("ExposureTime"), times.get("ExposureTimeUnit", "s"))
    return facts | elapsed(times.get("DeltaT"), times.get("DeltaTUnit", "s"))


def _of_channel(root: Any, channel: Any) -> Facts:
    """The light that a channel was taken with."""
    settings = channel.find("{*}LightSourceSettings")
    if settings is None:
        settings = channel.find("{*}LightSourceRef")  # its name before 2010
    if settings is None:
        return {}
    name = settings.get("ID")
    laser = next((one for one in root.iterfind("{*}Instrument/{*}Laser") if name and one.get("ID") == name), None)
    facts = fraction("light_attenuation", settings.get("Attenuation"))
    for element in (settings, laser):
        if element is not None:
            said = wavelength("laser_nm", element.get("Wavelength"), element.get("WavelengthUnit", "nm"))
            facts = {**said, **facts}
    return facts


def _index(plane: Any, axis: str) -> int:
    try:
        return int(plane.get(f"The{axis}", 0))
    except ValueError:
        return -1
