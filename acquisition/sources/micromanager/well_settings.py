"""How each well is imaged: the settings, with what the plate map says of single wells in their place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from spheroidd.acquisition.sources.micromanager.settings import STALL_PERIODS, MicroManagerSettings
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, WellRole
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import EXPOSURES, Z_START

MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class WellSettings:
    """One well's: exposures by channel (milliseconds), where its first slice lies and how far the others (um)."""

    exposure_ms: Mapping[str, float]
    z_start_um: float
    z_step_um: float
    period_s: float
    stall_s: float

    @classmethod
    def of(cls, settings: MicroManagerSettings, entry: PlateWell | None) -> Self:
        """Those of a well; of one that the map does not name, those of all."""
        s, imaging = settings, entry.imaging if entry is not None else None
        planned = {name: s.channels[name].exposure_ms for name in s.channel_names}  # type: ignore[index]
        own = {name: imaging.exposure_of(name) or ms for name, ms in planned.items()} if imaging else planned
        z_start_um = s.z_start_um if imaging is None or imaging.z_start_um is None else imaging.z_start_um
        longer_s = s.frames_per_slice * sum(own[name] - ms for name, ms in planned.items()) / 1000
        period_s = s.period_s + longer_s if s.slice_period_s is None else s.period_s + max(0.0, longer_s)
        stall_s = max(STALL_PERIODS * period_s, s.min_stall_s)
        step_um = s.z_step_um if entry is None or entry.z_step_um is None else entry.z_step_um
        return cls(own, z_start_um, step_um, period_s, stall_s)

    def z_um(self, z: int) -> float:
        """The focus stage's position for a slice."""
        return self.z_start_um + z * self.z_step_um


class PlateSettings:
    """Those of every well of a plate; ConfigError names all wells that cannot be imaged so."""

    def __init__(self, settings: MicroManagerSettings, plate_map: PlateMap) -> None:
        self._all = WellSettings.of(settings, None)
        self._own = {
            entry.well: WellSettings.of(settings, entry)
            for entry in plate_map
            if entry.treatment.role is not WellRole.EMPTY
        }
        faults = [fault for entry in plate_map if entry.well in self._own for fault in self._faults(settings, entry)]
        if faults:
            more = [f"\n  and {len(faults) - MOST_TOLD} more"] if len(faults) > MOST_TOLD else []
            told = faults[0] if len(faults) == 1 else "".join(f"\n  {one}" for one in (*faults[:MOST_TOLD], *more))
            do = "correct the plate map, or the settings that it goes against"
            raise ConfigError(f"wells cannot be imaged as the plate map says: {told}", where="plate.map", do=do)

    def of(self, key: StackKey) -> WellSettings:
        """Those of a stack's well."""
        return self.at(key.well)

    def at(self, well: WellId | None) -> WellSettings:
        """Those of a well, also of one that is not on the map."""
        return self._own.get(well, self._all) if well is not None else self._all

    def _faults(self, s: MicroManagerSettings, entry: PlateWell) -> list[str]:
        own, found = self._own[entry.well], []
        for channel, name in EXPOSURES.items():
            if channel and channel not in s.channels and channel in entry.imaging.exposure_ms:
                found.append(f"{entry.well}: {name} is given, and [source.channels] has no {channel}")
        if s.autofocus is not None:
            if entry.imaging.z_start_um is not None:
                found.append(f"{entry.well}: {Z_START} is given, and [source.autofocus] looks for it")
            if own.z_step_um != s.z_step_um:
                found.append(f"{entry.well}: z_step_um is given, and [source.autofocus] reckons with one for all")
            return found
        low, high = s.z_limits_um
        for words, z_um in (("first", own.z_um(0)), ("last", own.z_um(s.n_z - 1))):
            if not low <= z_um <= high:
                limits = f"z_limits_um [{low:g}, {high:g}]"
                found.append(f"{entry.well}: its {words} slice is at {z_um:g} um, outside {limits}")
        return found
