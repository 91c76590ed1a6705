"""Single images outside a run, through Micro-Manager's real core; camera and stages are left as they were found."""

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.emulation.emulated_camera import MicroManagerRun, MicroManagerRunSettings
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, InstrumentError
from spheroidd.protocols.ports import Snapping
from spheroidd.protocols.snapshot import SnapOrder
from spheroidd.protocols.well import WellId
from tests.acquisition.sources.micromanager.faults import painted
from tests.acquisition.sources.micromanager.rig import needs_core, plate, settings, warm_cores

pytestmark = [needs_core, warm_cores]
B02 = WellId.parse("B02")


def attach_noting(path: Path, core: Any) -> None:
    """A camera that paints; before each light path is set, the camera's state as it was left is noted."""
    set_config = core.set_config

    def noted(group: str, preset: str) -> None:
        state = {"exposure_ms": core.get_exposure(), "laser": core.get_property("Laser", "Label")}
        with path.open("a", encoding="utf-8") as file:
            print(json.dumps(state | {"shutter": core.get_shutter_open()}), file=file)
        set_config(group, preset)

    core.set_config = noted
    core.get_image = lambda: painted(
        core.get_position(), core.get_current_config("Channel"), core.get_x_position(), core.get_y_position()
    )


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MicroManagerSource, Path]]:
    path = tmp_path_factory.mktemp("view") / "states"
    source = MicroManagerSource(settings(), plate(), "rig", SystemClock(), attach=partial(attach_noting, path))
    with closing(source):
        source.check()
        yield source, path


def test_camera_and_stages_are_left_as_they_were_found(noted: tuple[MicroManagerSource, Path]) -> None:
    source, path = noted
    assert isinstance(source, Snapping)
    found = source.snap(SnapOrder("488"))
    sent = source.snap(SnapOrder("561", exposure_ms=7.0, well=B02, z_um=42.0))
    np.testing.assert_array_equal(sent.pixels, painted(42.0, "561", 1000.0, 1000.0))
    assert (sent.exposure_ms, sent.z_um, sent.well, sent.ceiling_adu) == (7.0, 42.0, B02, 65535)
    assert (sent.x_um, sent.y_um) == pytest.approx((1000.0, 1000.0), abs=0.1)
    source.put_back()
    again = source.snap(SnapOrder("488"))
    assert (again.x_um, again.y_um, again.z_um) == pytest.approx((found.x_um, found.y_um, found.z_um), abs=0.1)
    states = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(states) == 3
    assert {(one["laser"], one["shutter"]) for one in states} == {("dark", False)}
    assert len({one["exposure_ms"] for one in states}) == 1


def test_a_well_without_a_depth_is_looked_at_in_the_middle_of_its_stack(
    noted: tuple[MicroManagerSource, Path],
) -> None:
    source, _ = noted
    assert source.snap(SnapOrder("488", well=B02)).z_um == pytest.approx(102.0, abs=0.1)
    assert source.view_limits_um == (0, 200)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (SnapOrder("488", z_um=250.0), "z = 250 um lies outside the limits"),
        (SnapOrder("488", well=WellId.parse("A40")), "x = 39000 um lies outside the limits"),
        (SnapOrder("488", well=B02, field=1), "no field 1"),
        (SnapOrder("405"), "no channel '405'"),
    ],
    ids=["z", "x", "field", "channel"],
)
def test_what_it_may_not_do_is_refused_and_the_next_image_comes(
    noted: tuple[MicroManagerSource, Path], order: SnapOrder, words: str
) -> None:
    source, _ = noted
    with pytest.raises(ConfigError, match=words):
        source.snap(order)
    assert source.snap(SnapOrder("488")).pixels.shape == (96, 96)


def attach_blind(core: Any) -> None:
    """A camera that fails."""

    def snap() -> None:
        raise RuntimeError("Camera image buffer read failed")

    core.snap_image = snap


def test_a_camera_that_fails_is_told_and_the_run_is_not_harmed() -> None:
    with closing(MicroManagerSource(settings(), plate(), "rig", SystemClock(), attach=attach_blind)) as source:
        for _ in range(2):
            with pytest.raises(InstrumentError, match="image buffer read failed"):
                source.snap(SnapOrder("488"))


def test_an_exposure_is_tried_out_on_the_emulated_plate() -> None:
    rig = MicroManagerRunSettings.model_validate(
        settings(n_z=24, first_frame_s=60).model_dump() | {"emulated_camera": {"preset": "unit", "seed": 3}}
    )
    with closing(MicroManagerRun(rig, plate(), "rig", SystemClock())) as source:
        bright = [float(np.percentile(source.snap(SnapOrder("488", ms, B02)).pixels, 99)) - 100 for ms in (1.0, 2.0)]
    assert bright[1] == pytest.approx(2 * bright[0], rel=0.1)
