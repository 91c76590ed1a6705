"""A plate as a picture: its numbers, what is not known and what is excluded, as SVG and as PNG."""

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.report.drawing import Box, Dot, Drawing, Line, Picture, Text
from spheroidd.daemon.report.drawing import Path as Way
from spheroidd.daemon.report.heatmap import METRICS, viridis
from spheroidd.daemon.report.raster import to_png
from spheroidd.daemon.report.writer import write_heatmap
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

LIVE_UM3 = {"A01": 200_000.0, "A02": 4_000.0, "A03": 100_000.0, "B01": 200_000.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    treatments = {"A01": plates.UNTREATED, "B01": plates.UNTREATED, "A02": plates.KILLED}
    treatments |= {"A03": plates.sample("drug", 1.0), "B02": plates.sample("drug", 10.0)}
    wells = plates.plate_map("P1", {WellId.parse(name): of for name, of in treatments.items()})
    plates.register(folder, wells)
    plates.score(folder, wells, {WellId.parse(name): live for name, live in LIVE_UM3.items()})
    exclude_well(folder, "A03", "a bubble", who="ann")
    return folder


def texts(svg: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(svg).iter() if element.tag.endswith("}text")]


def test_every_well_has_its_number_and_every_control_its_letter(data: Path, tmp_path: Path) -> None:
    write_heatmap(data, tmp_path / "h.svg")
    said = texts(tmp_path / "h.svg")
    assert "P1: Viability, %" in said
    numbers = sorted(text for text in said if text in ("100", "50", "2"))
    assert numbers == ["100", "100", "100", "2", "2", "50", "50"]  # A01, B01, A02, A03, the scale and a column's name
    assert (said.count("U"), said.count("K")) == (2, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_every_figure_can_be_drawn(data: Path, tmp_path: Path, metric: str) -> None:
    write_heatmap(data, tmp_path / "h.svg", metric=metric)
    assert ElementTree.parse(tmp_path / "h.svg").getroot().tag.endswith("svg")


def test_the_png_shows_each_wells_colour_and_the_unknown_pale(data: Path, tmp_path: Path) -> None:
    write_heatmap(data, tmp_path / "h.png")
    image = np.asarray(Image.open(tmp_path / "h.png").convert("RGB"))
    assert image.shape[1] == 1600
    assert (image == tuple(bytes.fromhex(viridis(1.0)[1:]))).all(-1).sum() > 4000  # the end of the scale
    assert (image == tuple(bytes.fromhex("eceef1"))).all(-1).sum() > 4000


def test_a_picture_is_entered_in_the_audit_trail(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["heatmap", str(data), "-o", str(tmp_path / "h.png"), "--who", "eve"])
    assert (done.exit_code, done.stdout.split()) == (0, [str(tmp_path / "h.png")])
    with CatalogReader.read_only(data) as catalog:
        last = list(events(catalog))[-1]
    assert (last.action, last.who) == ("export written", "eve")
    assert json.loads(last.new_json or "")["metric"] == "v_control"


@pytest.mark.parametrize(
    ("name", "metric", "words"),
    [
        ("h.gif", "v_control", "a heatmap is SVG or PNG"),
        ("h.svg", "viability", "there is no metric 'viability'; use one of live_um3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(data: Path, tmp_path: Path, name: str, metric: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        write_heatmap(data, tmp_path / name, metric=metric)
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_shape_is_painted_where_it_stands() -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8), "#0000ff").save(jpeg, "JPEG", quality=95)
    shapes = (
        Box(0, 0, 10, 10, fill="#ff0000"),
        Line(0, 15, 10, 15, "#00ff00", 4),
        Dot(25, 5, 5, fill="#00ffff"),
        Way(((20, 10), (30, 10), (30, 20), (20, 20)), None, fill="#ff00ff", closed=True),
        Picture(30, 0, 10, 10, jpeg.getvalue()),
        Text(45, 18, "MMMM", 8, turned=True),
        Text(5, 30, "MMMM", 8, bold=True),
    )
    found = np.asarray(Image.open(io.BytesIO(to_png(Drawing(60, 40, "all", shapes), 240))).convert("RGB"))
    at = {"box": (20, 20), "line": (60, 20), "dot": (20, 100), "way": (60, 100)}
    assert {name: found[y, x].tolist() for name, (y, x) in at.items()} == {
        "box": [255, 0, 0],
        "line": [0, 255, 0],
        "dot": [0, 255, 255],
        "way": [255, 0, 255],
    }
    assert found[20, 140, 2] > 240
    assert found[:70, 150:185].min() < 100  # the turned letters stand above their base
    assert found[95:120, 20:90].min() < 100
