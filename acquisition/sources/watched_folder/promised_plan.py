"""What to promise of a stack that is still coming: its geometry out of its first files, the plate map and the settings.

Nothing is invented: a length or a count that no one says is asked for by the name of its key.
"""

from dataclasses import replace
from typing import Literal

from spheroidd.acquisition.sources.watched_folder.settings import FolderSettings
from spheroidd.acquisition.sources.watched_folder.stack_arrival import Arrival
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import StackKey, StackPlan


class Promise:
    """Makes plans, and remembers a sound one for wells whose files are not."""

    def __init__(self, settings: FolderSettings, plate_map: PlateMap) -> None:
        self._settings, self._map = settings, plate_map
        self._sound: StackPlan | None = None

    def of_slices(self, arrival: Arrival, *, quiet: bool) -> StackPlan | None:
        """The plan of a stack whose slices are files; None until a whole one came and the number of slices is known.

        ConfigError where the stack has gone `quiet` and still nobody says how many slices it has.
        """
        sample = arrival.sample
        if sample is None:
            return None
        pixel_um = self._length("pixel_um", arrival, sample.pixel_um)
        z_step_um = self._length("z_step_um", arrival, sample.z_step_um)
        n_z = self._settings.n_z or self._said_n_z(arrival)
        if n_z is None:
            if not quiet:
                return None
            what = f"nothing says how many slices a stack has; {arrival.top_z + 1} came for {arrival.key.well}"
            raise ConfigError(what, where="source.n_z", do="write the number of slices under [source]")
        height, width, dtype = sample.geometry
        return self._keep(
            StackPlan(
                arrival.key,
                self._settings.channel_names or sample.channels,
                n_z,
                height,
                width,
                pixel_um=pixel_um,
                z_step_um=z_step_um,
                dtype=dtype,
            )
        )

    def of_file(self, arrival: Arrival) -> StackPlan | None:
        """The plan of a stack whose file, or files by channel, are open."""
        stack = arrival.opened
        if stack is None:
            return None
        return self._keep(
            StackPlan(
                arrival.key,
                stack.channels,
                stack.n_z,
                stack.height,
                stack.width,
                pixel_um=self._length("pixel_um", arrival, stack.pixel_um),
                z_step_um=self._length("z_step_um", arrival, stack.z_step_um),
                dtype=stack.dtype,
            )
        )

    def stand_in(self, key: StackKey) -> StackPlan | None:
        """What to promise of a stack without usable files: as a sound one; None where there was none yet."""
        return replace(self._sound, key=key) if self._sound else None

    def _keep(self, plan: StackPlan) -> StackPlan:
        self._sound = self._sound or plan
        return plan

    def _said_n_z(self, arrival: Arrival) -> int | None:
        """From the field's metadata, else from a slice's; not where a slice beyond it has come."""
        said = (arrival.said_n_z, arrival.sample.n_z if arrival.sample else None)
        return next((n_z for n_z in said if n_z is not None and n_z > arrival.top_z), None)

    def _length(self, name: Literal["pixel_um", "z_step_um"], arrival: Arrival, said: float | None) -> float:
        """From the files, else the map, else the settings."""
        length = said or getattr(self._map[arrival.key.well], name) or getattr(self._settings, name)
        if length is None:
            found = f" ({'; '.join(arrival.defects)})" if arrival.defects else ""
            what = f"{name} of well {arrival.key.well} is unknown: neither its files{found} nor the plate map say it"
            raise ConfigError(what, where=f"source.{name}", do="write it in micrometres under [source]")
        return float(length)
