"""A daemon in a process of its own is looked through before its plate is run, and not while it is."""

import json
from pathlib import Path

import pytest

from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import MissingError, RefusedError
from tests.daemon.service.test_service_run import EMULATED, PUSHED, serving, state, until

MAP = "well,role\nA01,negative_control\n"


def test_an_instrument_is_looked_through_before_a_run_and_not_while_it_runs(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, client):
        snap = lambda **given: client.call(client.stub.SnapImage, wire.SnapImageRequest(**given))  # noqa: E731
        with pytest.raises(MissingError, match="no plate waits"):
            snap()
        client.call(client.stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=EMULATED))
        taken = snap(well="A02", exposure_ms=150.0)
        assert (taken.plate, taken.well, taken.exposure_ms, taken.height) == ("P1", "A02", 150.0, 96)
        assert sum(taken.histogram) == 96 * 96
        sweep = client.call(client.stub.SweepFocus, wire.SweepFocusRequest(range_um=20, step_um=1))
        assert len(sweep.points) == 21
        given = wire.SubmitPlateRequest(config_toml=PUSHED.replace("P1", "P2"), plate_map_csv=MAP)
        client.call(client.stub.SubmitPlate, given)
        with pytest.raises(RefusedError, match="takes no single images"):
            snap(plate="P2")
        snap()
        client.call(client.stub.StartPlate, wire.StartPlateRequest(plate="P1"))
        until(lambda: state(client) == "running", "the plate runs")
        with pytest.raises(RefusedError, match="the instrument belongs to the run of a plate"):
            snap()
        client.call(client.stub.AbortPlate, wire.AbortPlateRequest(reason="enough"))
        until(lambda: state(client) == "idle", "the plate has ended")
        assert snap(plate="P1").plate == "P1"
        assert client.call(client.stub.EndLiveView, wire.EndLiveViewRequest()).done == "the instrument is let go"
    with Catalog.read_only(tmp_path / "data") as catalog:
        views = [(e.action, e.who, e.plate) for e in audit_trail.events(catalog) if "live view" in e.action]
        light = [json.loads(e.new_json or "") for e in audit_trail.events(catalog) if e.action == "live view ended"]
    assert views[:2] == [("live view begun", "local", "P1"), ("live view ended", "local", "P1")]
    assert light[0]["light"][0] == {"well": "A02", "channel": "488", "images": 24, "exposed_ms": 150.0 + 23 * 50.0}
