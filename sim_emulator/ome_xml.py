"""OME-XML as an instrument would write it: shape, voxel size, channel names and how each plane was taken.

No date and no random identifier.
"""

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from spheroidd.protocols.stack import StackPlan
from spheroidd.sim_emulator.stage import Taken

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_WAVELENGTH_NM = {"488": (488, 520), "561": (561, 620)}  # excitation, emission


def ome_xml(plan: StackPlan, name: str, *, n_z: int, channels: tuple[str, ...], planes: Sequence[Taken] = ()) -> str:
    """The description of one file that holds `n_z` planes of these channels, all channels of a z together (XYCZT).

    `planes` says in that order how each was taken.
    """
    colours = "".join(
        f'<Channel ID="Channel:0:{k}" Name={quoteattr(channel)} SamplesPerPixel="1"'
        f' ExcitationWavelength="{_WAVELENGTH_NM[channel][0]}" EmissionWavelength="{_WAVELENGTH_NM[channel][1]}"/>'
        for k, channel in enumerate(channels)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:schemaLocation="{NAMESPACE} {NAMESPACE}/ome.xsd" Creator="spheroidd emulator">'
        f'<Image ID="Image:0" Name={quoteattr(name)}>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{plan.dtype}" BigEndian="false"'
        f' SizeX="{plan.width}" SizeY="{plan.height}" SizeC="{len(channels)}" SizeZ="{n_z}" SizeT="1"'
        f' PhysicalSizeX="{plan.pixel_um!r}" PhysicalSizeXUnit="\u00b5m"'
        f' PhysicalSizeY="{plan.pixel_um!r}" PhysicalSizeYUnit="\u00b5m"'
        f' PhysicalSizeZ="{plan.z_step_um!r}" PhysicalSizeZUnit="\u00b5m">'
        f'{colours}<TiffData IFD="0" PlaneCount="{n_z * len(channels)}"/>'
        f"{''.join(_plane(taken, *divmod(k, len(channels))) for k, taken in enumerate(planes))}"
        "</Pixels></Image></OME>"
    )


def _plane(taken: Taken, z: int, channel: int) -> str:
    exposure = "" if taken.exposure_ms is None else f' ExposureTime="{taken.exposure_ms!r}" ExposureTimeUnit="ms"'
    places = "".join(
        f' Position{axis}="{at!r}" Position{axis}Unit="\u00b5m"'
        for axis, at in (("X", taken.x_um), ("Y", taken.y_um), ("Z", taken.z_um))
    )
    time = f' DeltaT="{taken.elapsed_s!r}" DeltaTUnit="s"'
    return f'<Plane TheZ="{z}" TheT="0" TheC="{channel}"{time}{exposure}{places}/>'
