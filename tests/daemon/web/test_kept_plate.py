"""The page's plate, of which only what changed is made anew, is the plate made anew, whatever happened in between."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.web import kept_plate
from spheroidd.daemon.web.kept_plate import KeptPlate
from spheroidd.daemon.web.plate_view import cell, plate_view
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.focus import FocusFound, FocusStatus
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.results import Related, WellStatus
from spheroidd.protocols.stack import StackKey
from tests.daemon.catalog.test_kept_standings import FIELDS, acts_of_chance
from tests.daemon.report import plates


@pytest.mark.parametrize("seed", range(4))
def test_a_kept_plate_is_the_plate_made_anew(tmp_path: Path, seed: int) -> None:
    chance, kept = Random(seed), KeptStandings()
    views = {plate: KeptPlate(kept, plate) for plate in FIELDS}
    with Catalog.create_or_open(tmp_path) as catalog, Catalog.read_only(tmp_path) as reader:
        for _ in acts_of_chance(catalog, chance, 150):
            plate = chance.choice(list(FIELDS))
            if chance.random() < 0.5:
                quality = plate_quality(reader, plate) if chance.random() < 0.1 else None
                assert json.loads(views[plate].view(reader, quality)) == json.loads(
                    json.dumps(plate_view(reader, plate, quality))
                )


def test_a_well_that_did_not_change_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wells, live = plates.screen_plate("P1", 2, 3, {"drug": 1.0})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, live)
    drawn: list[str] = []
    monkeypatch.setattr(kept_plate, "cell", lambda entry, *of: drawn.append(str(entry.well)) or cell(entry, *of))
    view = KeptPlate(KeptStandings(), "P1")
    with Catalog.create_or_open(tmp_path) as catalog, Catalog.read_only(tmp_path) as reader:
        view.view(reader, None)
        assert len(drawn) == sum(1 for _ in wells.imaged())
        drawn.clear()
        view.view(reader, None)
        assert drawn == []
        key = StackKey("P1", min(live))
        related = Related(WellStatus.PROVISIONAL, None, 12.25)
        assert catalog.update_related(key, reader.models()[0], related, "controls")
        view.view(reader, None)
        assert drawn == [str(key.well)]


def test_a_flag_that_comes_and_goes_is_drawn_though_no_row_changed(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("P1", 2, 3, {"drug": 1.0})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, live)
    view = KeptPlate(KeptStandings(), "P1")
    with Catalog.read_only(tmp_path) as reader:
        judged = plate_quality(reader, "P1")
        flag = QualityFlag("outlier", Verdict.WARN, (str(min(live)),), "it differs", "look at it")
        for quality in (replace(judged, flags=()), replace(judged, flags=(flag,)), replace(judged, flags=())):
            found = json.loads(view.view(reader, quality))
            assert found == json.loads(json.dumps(plate_view(reader, "P1", quality)))
            flagged = {cell["well"] for cell in found["wells"] if "it differs" in cell["words"]}
            assert flagged == {well for one in quality.flags for well in one.wells}


def test_a_focus_that_was_found_meanwhile_is_drawn(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.screen_plate("P1", 2, 3, {"drug": 1.0})[0])
    view = KeptPlate(KeptStandings(), "P1")
    with Catalog.create_or_open(tmp_path) as catalog, Catalog.read_only(tmp_path) as reader:
        view.view(reader, None)
        key = min(row.key for row in reader.stacks("P1"))
        catalog.put_focus(FocusFound(key, FocusStatus.FOUND, "488", 0.0, 0.0, 12.5, 10.0, None, False, ()))
        assert json.loads(view.view(reader, None)) == json.loads(json.dumps(plate_view(reader, "P1", None)))


def test_a_plate_that_is_not_there_is_refused_as_often_as_it_is_asked_for(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.screen_plate("P1", 2, 3, {"drug": 1.0})[0])
    view = KeptPlate(KeptStandings(), "P9")
    with Catalog.read_only(tmp_path) as reader:
        for _ in range(2):
            with pytest.raises(ConfigError, match="no plate 'P9'"):
                view.view(reader, None)
