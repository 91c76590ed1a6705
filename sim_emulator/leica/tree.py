"""The tree that Leica's Matrix Screener writes, one plane a file; U is a well's column, V its row, both from 0."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from spheroidd.protocols.stack import SliceIndex, StackPlan
from spheroidd.sim_emulator.ome_xml import ome_xml
from spheroidd.sim_emulator.stage import Taken

JOB = 8


@dataclass(frozen=True, slots=True)
class ScreenerField:
    """One field of a well in an experiment's folder. Z is the slice; C00 is the plan's first channel."""

    experiment: Path
    plan: StackPlan
    how: Callable[[SliceIndex], Taken]
    x: int = 0
    y: int = 0
    job: int = JOB

    @property
    def folder(self) -> Path:
        """Where the field's images lie."""
        return self.experiment / "slide--S00" / f"chamber--{self._chamber}" / f"field--X{self.x:02d}--Y{self.y:02d}"

    def make(self) -> None:
        """Make the folders."""
        (self.folder / "metadata").mkdir(parents=True, exist_ok=True)

    def path(self, channel: str, z: int) -> Path:
        """The file of one plane."""
        return self.folder / f"{self._stem}--Z{z:02d}--C{self.plan.channels.index(channel):02d}.ome.tif"

    def write(self, channel: str, z: int, image: NDArray[np.unsignedinteger[Any]]) -> Path:
        """Write one plane."""
        path = self.path(channel, z)
        planes = [self.how(SliceIndex(channel, z))]
        text = ome_xml(self.plan, path.name, n_z=1, channels=(channel,), planes=planes).encode()
        with tifffile.TiffWriter(path, byteorder="<") as file:
            file.write(image, description=text, metadata=None, software=False, **resolution(self.plan))
        return path

    def write_metadata(self) -> None:
        """Write the field's own OME-XML, as it is written once all of its images are."""
        planes = [self.how(index) for index in self.plan.indices()]
        text = ome_xml(self.plan, self._stem, n_z=self.plan.n_z, channels=self.plan.channels, planes=planes).encode()
        (self.folder / "metadata" / f"{self._stem}.ome.xml").write_bytes(text)

    @property
    def _chamber(self) -> str:
        well = self.plan.key.well
        return f"U{well.column:02d}--V{well.row:02d}"

    @property
    def _stem(self) -> str:
        return f"image--L0000--S00--{self._chamber}--J{self.job:02d}--E00--O00--X{self.x:02d}--Y{self.y:02d}--T0000"


def resolution(plan: StackPlan) -> dict[str, Any]:
    """The pixel size as TIFF says it."""
    return {"resolution": (1e4 / plan.pixel_um, 1e4 / plan.pixel_um), "resolutionunit": "CENTIMETER"}
