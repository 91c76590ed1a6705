"""A plan in the form of useq-schema, from which pymmcore-plus, napari-micromanager and others acquire.

Written is what every such program understands: one stage position for each field of each well, in their order, and
absolute z. What useq has no words for (labware, taught wells, roles) stands in the sequence's metadata, "spheroidd".
"""

import errno
import importlib
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from spheroidd.acquisition.plates.plan_settings import FormatSettings, PlanSettings
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.daemon.config.model import load_config, open_source
from spheroidd.daemon.planning.dry_run import at_its_line
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.plate_format import Point

METADATA_KEY = "spheroidd"


class OwnWords(BaseModel):
    """What stands in a sequence's metadata; no compound and no patient leaves the laboratory this way."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    plate: str | None = None
    channels: dict[str, str] = {}
    roles: dict[str, WellRole] = {}
    z_step_um: float | None = Field(default=None, gt=0)
    plan: PlanSettings | None = None
    a01_um: Point | None = None
    pitch_um: Point | None = None


def load_useq() -> Any:
    """The package useq; ConfigError where it is not installed."""
    try:
        return importlib.import_module("useq")
    except ImportError as error:
        do = "pip install 'spheroidd[useq]'"
        raise ConfigError(f"useq-schema cannot be loaded: {error}", where="spheroidd plan", do=do) from error


def export_useq(path: Path, out: Path) -> str:
    """Write the plan of a configuration as `out` (.yaml, .yml or .json); what was written, in words.

    ConfigError names what keeps it from being one.
    """
    useq = load_useq()
    as_json = is_json(out)
    config = load_config(path)
    settings = config.source
    if not isinstance(settings, MicroManagerSettings):
        what = f"a source of kind {config.source_kind!r} sends no stage anywhere, so there is no plan to write"
        raise ConfigError(what, where=f"{path}: source.kind", do='export a configuration of kind "micromanager"')
    try:
        with closing(open_source(config, SystemClock())) as source:
            plate_map, plans = source.plate_map, list(source.plans())
    except ConfigError as error:
        raise at_its_line(error, path, path.read_text(encoding="utf-8-sig")) from error
    words, n_fields = _own_words(settings, plate_map), len(settings.sites.fields_um)
    positions = []
    for plan in plans:
        well, field = plan.key.well, plan.key.stack
        x_um, y_um = settings.xy_um(well, field)
        name = f"{well}_{field}" if n_fields > 1 else str(well)
        positions.append(useq.Position(x=x_um, y=y_um, name=name, plate_row=well.row, plate_col=well.column))
    channels = [settings.channels[name] for name in settings.channel_names]  # type: ignore[index]
    sequence = useq.MDASequence(
        axis_order="pcz" if settings.z_sequencing else "pzc",
        stage_positions=positions,
        channels=[
            useq.Channel(config=c.preset, group=settings.channel_group, exposure=c.exposure_ms) for c in channels
        ],
        z_plan=useq.ZAbsolutePositions(absolute=[settings.z_um(z) for z in range(settings.n_z)]),
        metadata={METADATA_KEY: words.model_dump(mode="json", exclude_none=True)},
    )
    text = sequence.model_dump_json(exclude_unset=True, indent=1) if as_json else sequence.yaml()
    write_text(out, text + ("\n" if as_json else ""))
    return f"{out}: {len(positions)} positions, {len(channels)} channels, {settings.n_z} slices"


def _own_words(settings: MicroManagerSettings, plate_map: PlateMap) -> OwnWords:
    plan = settings.plan
    if plan is not None:
        plate, known = settings.sites.plate, {}
        if plan.labware is None:  # a path means nothing elsewhere
            names = ("rows", "columns", "pitch_um", "well_um")
            given = FormatSettings(**{name: getattr(plate, name) for name in names}, round=plate.round_wells)
            known = {"labware_file": None, "format": given}
        plan = plan.model_copy(update={"fields_um": settings.sites.fields_um, "field_grid": None, **known})
    return OwnWords(
        plate=plate_map.name,
        channels={name: settings.channels[name].preset for name in settings.channel_names},  # type: ignore[index]
        roles={str(entry.well): entry.treatment.role for entry in plate_map.imaged()},
        z_step_um=settings.z_step_um,
        plan=plan,
        a01_um=settings.a01_um,
        pitch_um=None if plan else settings.pitch_um,
    )


def is_json(path: Path) -> bool:
    """Whether a file is JSON by its name; ConfigError where it is neither that nor YAML."""
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError("its name does not say in which form it is", where=str(path), do="name it .yaml or .json")
    return suffix == ".json"


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8; ConfigError or StorageError where it cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        kind = StorageError if error.errno == errno.ENOSPC else ConfigError
        do = "choose a directory that is there, that you may write to, and that has room"
        raise kind(f"cannot be written: {error.strerror}", where=str(path), do=do) from error
