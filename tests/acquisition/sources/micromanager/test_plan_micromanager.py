"""A plan on Micro-Manager's real core: every field is taken where the taught wells put it, and says so."""

from contextlib import closing

import numpy as np
import pytest

from spheroidd.acquisition.plates.plan_settings import PlanSettings
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import WellId
from tests.acquisition.plates.test_plan_geometry import laid
from tests.acquisition.sources.micromanager.faults import attach_painted, painted
from tests.acquisition.sources.micromanager.rig import needs_core, plate, settings

TRUTH = laid(1.5, 1.0, True, (700.0, 9_700.0))
LAID_OUT = PlanSettings.model_validate(
    {
        "labware": "Akura_96_spheroid_microplate",
        "taught": {
            name: TRUTH.stage_um(9000.0 * column, 9000.0 * row)
            for name, row, column in (("A01", 0, 0), ("A12", 0, 11), ("H01", 7, 0))
        },
        "field_grid": {"rows": 1, "columns": 2, "step_um": [400.0, 400.0]},
        "controls_first": False,
    }
)
LIMITS = {"x_limits_um": (0.0, 20_000.0), "y_limits_um": (0.0, 20_000.0), "a01_um": None, "pitch_um": (9000.0, 9000.0)}


@needs_core
def test_each_field_is_a_stack_taken_where_it_lies() -> None:
    rig = settings(plan=LAID_OUT, n_z=2, recorded={"laser_state": ("Laser", "State")}, **LIMITS)
    with closing(MicroManagerSource(rig, plate("B01", "A01"), "rig", SystemClock(), attach=attach_painted)) as s:
        s.check()
        plans = list(s.plans())
        assert [(str(plan.key.well), plan.key.stack) for plan in plans] == [
            (well, field) for well in ("A01", "B01") for field in (0, 1)
        ]
        for plan in plans:
            well, offset = plan.key.well, (-200.0, 200.0)[plan.key.stack]
            x_um, y_um = TRUTH.stage_um(9000.0 * well.column + offset, 9000.0 * well.row)
            frames = list(s.frames(plan, set(plan.indices())))
            assert {frame.index for frame in frames} == set(plan.indices())
            for frame in frames:
                assert frame.metadata["x_um"] == pytest.approx(x_um, abs=0.1)
                assert frame.metadata["y_um"] == pytest.approx(y_um, abs=0.1)
                assert frame.metadata["laser_state"] == {"488": 1, "561": 2}[frame.index.channel]
                assert {"z_um", "z_planned_um", "exposure_ms", "preset", "host_time_s"} <= frame.metadata.keys()
                z_um = rig.z_um(frame.index.z)
                np.testing.assert_array_equal(frame.pixels, painted(z_um, frame.index.channel, x_um, y_um))


def test_a_field_out_of_reach_is_refused_before_anything_moves() -> None:
    rig = settings(plan=LAID_OUT, **LIMITS | {"x_limits_um": (600.0, 20_000.0)})
    source = MicroManagerSource(rig, plate("B02", "A01"), "rig", SystemClock())
    with pytest.raises(ConfigError, match=r"well A01: x = 500") as caught:
        source.check()
    assert "source.x_limits_um" in caught.value.do


def test_a_position_between_two_fields_is_none() -> None:
    rig = settings(plan=LAID_OUT, **LIMITS)
    well = WellId.parse("C05")
    (x0, y0), (x1, y1) = (rig.xy_um(well, field) for field in (0, 1))
    assert rig.site_at(x1, y1) == (well, 1)
    assert rig.site_at((x0 + x1) / 2, (y0 + y1) / 2) is None
