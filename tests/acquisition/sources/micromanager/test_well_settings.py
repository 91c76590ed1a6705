"""Exposures and depths of single wells, from the plate map to the camera and into each frame's metadata."""

from contextlib import closing
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from spheroidd.acquisition.sources.leica.source import LeicaCamSource
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import WellImaging
from tests.acquisition.sources.micromanager.faults import attach_painted, painted
from tests.acquisition.sources.micromanager.rig import needs_core, plate, settings

B02 = WellId.parse("B02")


def own(exposure_ms: dict[str, float] | None = None, z_start_um: float | None = None, **given: Any) -> PlateMap:
    """A plate whose second well is imaged in a way of its own."""
    wells = plate()
    imaging = WellImaging(MappingProxyType(exposure_ms or {}), z_start_um)
    return replace(wells, wells=(wells.wells[0], replace(wells.wells[1], imaging=imaging, **given)))


@needs_core
def test_a_well_is_exposed_and_focused_as_the_map_says() -> None:
    wells = own({"561": 7.0}, 50.0, z_step_um=2.0)
    with closing(MicroManagerSource(settings(), wells, "rig", SystemClock(), attach=attach_painted)) as source:
        source.check()
        first, second = source.plans()
        assert (first.z_step_um, second.z_step_um) == (1.0, 2.0)
        assert second.slice_period_s == pytest.approx((first.slice_period_s or 0) + 0.006)
        for plan, exposures, lowest, step in ((first, (1.0, 1.0), 100.0, 1.0), (second, (1.0, 7.0), 50.0, 2.0)):
            frames = list(source.frames(plan, set(plan.indices())))
            assert len(frames) == plan.n_slices
            for frame in frames:
                z_um = lowest + step * frame.index.z
                exposure_ms = exposures[plan.channels.index(frame.index.channel)]
                assert (frame.metadata["exposure_ms"], frame.metadata["z_planned_um"]) == (exposure_ms, z_um)
                x_um = y_um = 1000.0 * plan.key.well.row
                assert (frame.pixels == painted(z_um, frame.index.channel, x_um, y_um)).all()


@pytest.mark.parametrize(
    ("wells", "changed", "words"),
    [
        (own(z_start_um=198.0), {}, "B02: its last slice is at 201 um, outside z_limits_um [0, 200]"),
        (own(z_step_um=40.0), {}, "B02: its last slice is at 220 um"),
        (own(z_start_um=5.0), {"autofocus": {}}, "B02: z_start_um is given, and [source.autofocus] looks for it"),
        (own(z_step_um=2.0), {"autofocus": {}}, "B02: z_step_um is given, and [source.autofocus]"),
        (
            own({"561": 5.0}),
            {"channels": {"488": {"preset": "488", "exposure_ms": 1}}},
            "B02: exposure_ms_561 is given, and [source.channels] has no 561",
        ),
    ],
)
def test_a_well_that_cannot_be_imaged_so_is_told(wells: PlateMap, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        MicroManagerSource(settings(**changed), wells, "rig", SystemClock())
    assert words in told.value.what
    assert told.value.where == "plate.map"


def test_every_well_that_cannot_be_imaged_so_is_told_at_once() -> None:
    wells = replace(own(), wells=tuple(replace(w, imaging=WellImaging({}, -9.0)) for w in own().wells))
    with pytest.raises(ConfigError) as told:
        MicroManagerSource(settings(), wells, "rig", SystemClock())
    assert "A01: its first" in told.value.what
    assert "B02: its first" in told.value.what


def test_a_source_that_cannot_refuses_the_map() -> None:
    given = LeicaCamSource.Settings.model_construct(kind="leica-cam")
    with pytest.raises(ConfigError, match="the plate map says exposure_ms and z_start_um, and a leica-cam source"):
        build_source(given, own({"": 5.0}, 4.0), "rig")
