"""What to promise of a stack that is still coming: its geometry out of its first files, the plate map and the settings.

Nothing is invented: a length or a count that no one says is asked for by the name of its key.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from spheroidd.acquisition.images.metadata.voxel_size import DisagreementError, LengthName, VoxelFrom, settle_length
from spheroidd.acquisition.sources.watched_folder.settings import FolderSettings
from spheroidd.acquisition.sources.watched_folder.stack_arrival import Arrival
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import StackKey, StackPlan

NO_CONFLICTS: Mapping[str, str] = MappingProxyType({})


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
        n_z = self._n_z(arrival)
        if n_z is None:
            if not quiet:
                return None
            came = f"slices {arrival.low_z} to {arrival.top_z} arrived for {arrival.key.well}"
            what = f"nothing says how many slices a stack has; {came}"
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
                pixel_um=self._length("pixel_um", arrival, stack.pixel_um, stack.conflicts),
                z_step_um=self._length("z_step_um", arrival, stack.z_step_um, stack.conflicts),
                dtype=stack.dtype,
                raw=stack.raw,
            )
        )

    def stand_in(self, key: StackKey) -> StackPlan | None:
        """What to promise of a stack without usable files: as a sound one; None where there was none yet."""
        return replace(self._sound, key=key) if self._sound else None

    def _keep(self, plan: StackPlan) -> StackPlan:
        self._sound = self._sound or plan
        return plan

    def _n_z(self, arrival: Arrival) -> int | None:
        """From the settings, else the field's metadata, else a slice's; DisagreementError where they differ.

        What a file says does not hold where slices beyond it have come that a wrong first number does not explain.
        """
        said = (arrival.said_n_z, arrival.sample.n_z if arrival.sample else None)
        n_came = arrival.top_z + 1 - (arrival.low_z or 0)
        of_files = next((n_z for n_z in said if n_z is not None and n_z >= n_came), None)
        told = self._settings.n_z
        if told is not None and of_files is not None and told != of_files:
            what = f"a stack has {told} slices as source.n_z says, and {of_files} as its files say"
            raise DisagreementError(what, where=f"well {arrival.key.well}", do="correct source.n_z, or leave it out")
        return told or of_files

    def _length(
        self, name: LengthName, arrival: Arrival, said: float | None, conflicts: Mapping[str, str] = NO_CONFLICTS
    ) -> float:
        """As the files, the map and the settings say it; DisagreementError where they differ, ConfigError where none
        does.
        """
        well = arrival.key.well
        sources: dict[VoxelFrom, float | None] = {
            "file": said,
            "map": getattr(self._map[well], name),
            "settings": getattr(self._settings, name),
        }
        wins, conflict = self._settings.voxel_from, conflicts.get(name, "")
        length = settle_length(name, sources, wins, where=f"well {well}", conflict=conflict)
        if length is None:
            found = f" ({'; '.join(arrival.defects)})" if arrival.defects else ""
            what = f"{name} of well {well} is unknown: neither its files{found} nor the plate map say it"
            raise ConfigError(what, where=f"source.{name}", do="write it in micrometres under [source]")
        return float(length)
