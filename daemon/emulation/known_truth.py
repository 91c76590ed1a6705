"""Whose truth a recording's is: an emulator's that imaged the plate, or a folder's that was kept beside it.

A recording of a recording has the truth of the first. It is the plate's only where the recording is imaged as it was
taken: with the same slices and pixels, in the same place.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from rich.console import Console

from spheroidd.acquisition.images.stored_stack import is_own
from spheroidd.acquisition.sources.replay import ReplaySettings
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.config.model import load_config
from spheroidd.daemon.config.source_registry import build_source, settings_class
from spheroidd.daemon.emulation.emulated_plate import PlateOptions
from spheroidd.daemon.emulation.open_recording import MAP_NAME, open_recording, recording_map
from spheroidd.protocols.errors import ConfigError, SpheroiddError
from spheroidd.protocols.plate import PlateMap
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.sim_emulator.truth_files import KeptTruth, PhantomTruth, PlateTruth

Known = EmulatorSource | Path
"""The emulator that made a plate, or the folder with its truth."""
MAX_STEPS = 16  # recordings of recordings
_GEOMETRY = ("n_z", "height", "width", "pixel_um", "z_step_um", "field_z_um", "field_y_um", "field_x_um")


def truth_of_run(data: Path, plate: str, steps: int = 0) -> Known | None:
    """What knows the truth of a plate that was run; None where nothing does.

    ConfigError where an emulator made it, and this version's cannot be built again.
    """
    with CatalogReader.read_only(data) as catalog:
        config, plate_map = json.loads(catalog.plate_config(plate)), catalog.plate_map(plate)
    settings = config.get("source", {})
    if settings.get("kind") == "emulator" and settings.get("recording") is None:
        return _emulator(settings, plate_map, data)
    recording = _recording_of(config)
    return truth_of_recording(recording, steps + 1) if recording is not None else None


def truth_of_recording(path: Path, steps: int = 0) -> Known | None:
    """What knows the truth of a recording; None where nothing does."""
    if steps > MAX_STEPS:
        return None
    if path.is_dir() and (path / CATALOG_NAME).exists():
        with CatalogReader.read_only(path) as catalog:
            plates = catalog.plates()
        return truth_of_run(path, plates[0], steps) if len(plates) == 1 else None
    if path.is_dir() or path.suffix.lower() == ".toml":
        path = _map_path(path)
    if (folder := path.parent / "truth").is_dir() and path.is_file():
        return folder
    try:
        plate_map, _ = recording_map(path)
    except SpheroiddError:
        return None  # a map that is gone by now, or that is none
    for stack in (file for entry in plate_map or () for file in entry.paths.values()):
        if is_own(stack):
            data, plate = stack.absolute().parents[3], stack.parts[-4].removesuffix(".ome.zarr")
            return truth_of_run(data, plate, steps + 1) if (data / CATALOG_NAME).exists() else None
    return None


def recorded_truth(recording: Path, source: EmulatorSource) -> PlateTruth | None:
    """The truth of a recording as a source images it, to be written beside its images; None where it is not known."""
    if not _as_recorded(source):
        return None
    known = truth_of_recording(recording)
    return None if known is None else KeptTruth(known) if isinstance(known, Path) else PhantomTruth(known)


def tell_of_truth(options: PlateOptions, source: EmulatorSource, console: Console) -> None:
    """Say how a run of this recording is judged, where anybody knows its truth."""
    if options.recording is None or not _as_recorded(source):
        return
    known = truth_of_recording(options.recording)
    if isinstance(known, Path):
        console.print(f"Its truth: spheroidd evaluate DATA --truth {known}", markup=False, highlight=False,
                      soft_wrap=True)  # fmt: skip
        console.file.flush()


def _recording_of(config: Mapping[str, Any]) -> Path | None:
    """The recording that a run imaged just as it was taken; None where it imaged something else, or otherwise."""
    settings = config.get("source", {})
    if settings.get("kind") == "replay":
        named = config.get("plate", {}).get("map") or settings.get("map")
        return Path(named) if named else None
    if settings.get("kind") == "emulator" and all(settings.get(name) is None for name in _GEOMETRY):
        return Path(settings["recording"])
    camera = settings.get("emulated_camera") or {}
    if not camera.get("recording") or _is_moved(settings, camera):
        return None
    recording = Path(camera["recording"])
    return recording if _is_as_large(recording, settings) else None


def _is_moved(settings: Mapping[str, Any], camera: Mapping[str, Any]) -> bool:
    """Whether a microscope may have imaged another place than was recorded: on a plate that lies askew, where it
    looked for the focus itself, or in other fields than the well's middle.
    """
    plan = settings.get("plan") or {}
    askew = camera.get("tilt_um") is not None or bool(camera.get("uneven_um"))
    return askew or settings.get("autofocus") is not None or bool(plan.get("fields_um") or plan.get("field_grid"))


def _is_as_large(recording: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a microscope's stacks have the recording's slices and pixels."""
    try:
        with closing(open_recording(recording)) as opened:
            held = opened.geometry
    except SpheroiddError:
        return False
    recorded = (held.n_z, held.camera.height, held.camera.width, held.camera.pixel_um, held.z_step_um)
    return recorded == tuple(settings.get(name) for name in _GEOMETRY[: len(recorded)])


def _as_recorded(source: EmulatorSource) -> bool:
    """Whether a source images a recording with its own slices and pixels, in its own place."""
    if source.recording is None:
        return False
    held, p = source.recording.geometry, source.preset
    recorded = (held.n_z, held.camera.height, held.camera.width, held.camera.pixel_um, held.z_step_um, 0.0, 0.0, 0.0)
    return recorded == tuple(getattr(p, name) for name in _GEOMETRY)


def _map_path(path: Path) -> Path:
    if path.is_dir():
        return path / MAP_NAME
    config = load_config(path)
    named = config.plate.map or (config.source.map if isinstance(config.source, ReplaySettings) else None)
    return named or path


def _emulator(settings: Mapping[str, Any], plate_map: PlateMap, data: Path) -> EmulatorSource:
    try:
        model = settings_class("emulator").model_validate(settings)
        return cast(EmulatorSource, build_source(cast(EmulatorSettings, model), plate_map, plate_map.name))
    except (ValidationError, ValueError, SpheroiddError) as error:
        do = "give --truth FOLDER instead: this version's emulator does not know these settings"
        where = str(data / CATALOG_NAME)
        raise ConfigError(f"the emulator cannot be built again: {error}", where=where, do=do) from error
