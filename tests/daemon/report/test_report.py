"""The report: what it says of good and bad plates, in HTML that holds together and in PDF."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from spheroidd.acquisition.store import ngff
from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report import writer as report
from spheroidd.daemon.report.images import choose
from spheroidd.daemon.report.patients import COLUMNS, patients_rows
from spheroidd.daemon.report.provenance import map_digest, raw_digest
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.report.writer import gather, write_report
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

IC50_UM = {"inside": 1.0, "potent": 0.001, "weak": 4000.0}
HOSTILE = '<script>alert("x")</script> & Σ-Å 薬'
VOID = {"meta", "br", "link", "img", "hr", "input"}


@dataclass
class Page:
    """What a browser would make of an HTML file: its text, its tags, what it would fetch."""

    text: str
    tags: list[str]
    links: list[str]
    unclosed: list[str]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


def read(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return Page(" ".join(" ".join(reader.texts).split()), reader.tags, reader.links, reader.open)


def written(data: Path, **options: object) -> Page:
    out = data.parent / "report.html"
    assert write_report(data, out, **options).not_recorded is None  # type: ignore[arg-type]
    return read(out)


def pages_of(pdf: Path) -> int:
    found = re.findall(rb"/Type /Pages?\b", pdf.read_bytes())
    return found.count(b"/Type /Page")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A finished 96-well plate with pictures of the wells that a report chooses."""
    data = tmp_path_factory.mktemp("good") / "data"
    wells, live = plates.screen_plate("P1", 8, 12, IC50_UM)
    plates.register(data, wells)
    plates.score(data, wells, live)
    entries = [WellEntry(entry.well, entry.treatment, (result,)) for entry, result in _results(data, wells)]
    for entry in choose(entries)[:-1]:  # one of the chosen has no images
        plates.store_images(data, wells, plates.plan_of(StackKey("P1", entry.well)), live[entry.well] / plates.FULL_UM3)
    return data


def _results(data: Path, wells: PlateMap) -> list[tuple[PlateWell, WellResult]]:
    with Catalog.read_only(data) as catalog:
        return [(wells[WellId.parse(result.well)], result) for result in catalog.results(wells.name)]


@pytest.fixture(scope="module")
def page(good) -> Page:
    return written(good, command="spheroidd report 'my data'", who="Ada")


def test_it_is_one_file_that_asks_for_nothing(page):
    assert page.unclosed == []
    assert "script" not in page.tags
    assert all(link.startswith(("data:", "#")) for link in page.links)


@pytest.mark.parametrize(
    "said",
    [
        "Plate P1",
        "by Ada",
        "Pass",
        "Robust Z'",
        "inside",
        "the IC50 lies below the lowest",
        "< 0.05 µM",
        "no effect shown",
        "untreated (",
        "killed (",
        "Findings",
        "5 µm",
        "Model, SHA-256 " + plates.MODEL,
        "Model's precision bf16",
        "spheroidd report 'my data'",
        "Raw data, SHA-256 over 1536 slices",
    ],
)
def test_a_good_plate_is_told_whole(page, said):
    assert said in page.text


def test_an_ic50_is_near_its_truth_and_no_number_stands_where_none_is_known(page):
    rows = re.findall(r"(inside|potent|weak) ((?:about |< |> )?[\d.]+ µM|no effect shown|not known) ", page.text)
    told = dict(rows)
    assert float(told["inside"].split()[0]) == pytest.approx(1.0, rel=0.3)
    assert told["potent"] == "< 0.05 µM"
    assert told["weak"] in ("no effect shown", "> 158 µM")


def test_pictures_have_outlines_and_both_channels(page, good):
    assert page.links.count("#") == 0
    assert sum(link.startswith("data:image/jpeg") for link in page.links) == 5 * 2 + 2  # and a series of two
    assert "Calcein-AM" in page.text
    assert "propidium iodide" in page.text


def test_a_picture_that_cannot_be_read_is_named(page):
    assert re.search(r"Not shown: [A-H]\d\d: there is no such stack", page.text)


def test_the_same_plate_makes_the_same_report(good):
    with Catalog.read_only(good) as catalog:
        texts = {report.to_html(report.gather(catalog, good, now_s=1e9, who="Ada")) for _ in range(2)}
    assert len(texts) == 1


def test_the_report_is_in_the_audit_trail_with_its_hash_and_its_pdf_holds_pages(good, tmp_path):
    out, pdf = tmp_path / "r.html", tmp_path / "r.pdf"
    write_report(good, out, pdf, who="Grace")
    with Catalog.read_only(good) as catalog:
        event = audit_trail.events(catalog)[-1]
        assert not verify(catalog).problems
    assert (event.action, event.who, event.plate) == (Action.REPORT_WRITTEN, "Grace", "P1")
    assert event.new_json is not None
    files = json.loads(event.new_json)["files"]
    assert [file["sha256"] for file in files] == [audit_trail.file_sha256(path) for path in (out, pdf)]
    assert event.prev_sha256 in out.read_text(encoding="utf-8")  # the head before it was written is printed in it
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert pages_of(pdf) >= 3


def test_digests_are_those_of_the_trail_and_of_the_ledger(good):
    with Catalog.read_only(good) as catalog:
        registered = next(e for e in audit_trail.events(catalog) if e.action == Action.PLATE_REGISTERED)
        assert map_digest(catalog, "P1") == json.loads(registered.new_json or "{}")["map_sha256"]
        n_slices, digest = raw_digest(catalog, "P1")
    assert n_slices == 96 * 16
    assert len(digest) == 64


# A plate where things went wrong


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> Path:
    """96 wells in triplicate: dim edges, one bad control, one outlier, a failed well and one that a person excluded."""
    data = tmp_path_factory.mktemp("spoilt") / "data"
    triplicates = [plates.sample("drug", dose) for dose in plates.DOSES_UM for _ in range(3)]
    edge = [WellId(0, c) for c in range(12)] + [WellId(7, c) for c in range(12)]
    inner = [WellId(r, c) for r in range(1, 7) for c in range(1, 11)]
    treatments = dict.fromkeys(edge[:10], plates.UNTREATED) | dict.fromkeys(edge[10:], plates.KILLED)
    treatments |= dict.fromkeys(inner[:12], plates.UNTREATED) | dict(zip(inner[12:36], triplicates, strict=True))
    wells = plates.plate_map("P2", treatments)
    live = {}
    for place, (well, of) in enumerate(treatments.items()):
        level = {WellRole.NEGATIVE_CONTROL: 1.0, WellRole.POSITIVE_CONTROL: 0.03}.get(of.role)
        level = plates.share_alive(of.dose_um or 0.0, 2.0) if level is None else level
        dim = 0.75 if well in edge and of.role is WellRole.NEGATIVE_CONTROL else 1.0
        live[well] = plates.FULL_UM3 * level * dim * (1 + 0.03 * ((place * 7) % 5 - 2) / 2)
    live[BAD_CONTROL] *= 0.35
    live[OUTLIER] *= 0.3
    del live[FAILED]
    plates.register(data, wells)
    plates.score(data, wells, live)
    plates.end_stack(data, "P2", FAILED, StackEnd.FAILED, "the worker died three times on it")
    exclude_well(data, str(EXCLUDED), "pipetting error <b>", plate="P2", who="Ada")
    return data


@pytest.fixture(scope="module")
def spoilt_page(spoilt) -> Page:
    return written(spoilt)


BAD_CONTROL, OUTLIER, EXCLUDED, FAILED = plates.wells_of(["B03", "C04", "D05", "E07"])


@pytest.mark.parametrize(
    ("finding", "well"),
    [("bad-control", "B03"), ("edge-effect", "A01"), ("outlier", "C04"), ("excluded", "D05")],
)
def test_what_is_wrong_with_a_plate_is_found_and_named(spoilt_page, finding, well):
    text = spoilt_page.text
    findings = text[text.index("What to do") : text.index("Every imaged well")]
    named = re.search(rf"{finding} (?:pass|warn|fail|unknown) ([A-Z0-9, ]+?(?: and \d+ more)?) ", findings)
    assert named is not None
    assert well in named[1]


def test_a_failed_and_an_excluded_well_say_why_and_are_no_zero(spoilt_page):
    page = spoilt_page
    assert "failed: the worker died three times on it" in page.text
    assert "excluded by Ada: pipetting error <b>" in page.text  # escaped: the parser met no such tag
    assert re.search(r"E07 drug, [\d.]+ µM (— ){6,}0/16 failed", page.text)
    assert "1 well without a figure" in page.text


@pytest.mark.parametrize("how", [StackEnd.SKIPPED, StackEnd.ABORTED], ids=str)
def test_a_well_that_a_person_left_out_is_no_failed_one(tmp_path, how):
    data = tmp_path / "data"
    wells, live = plates.screen_plate("P3", 4, 6, {"drug": 1.0})
    left_out = live.popitem()[0]
    plates.register(data, wells)
    plates.score(data, wells, live)
    plates.end_stack(data, "P3", left_out, how, "left out by Ada: mould")
    text = written(data).text
    assert "left out by Ada: mould" in text
    assert f"23 final, 1 {how}" in text
    assert re.search(rf"{left_out} [^—]+(— ){{6,}}0/16 {how}: left out by Ada", text)
    assert "failed" not in text
    assert "may still change" not in text  # nothing more is to come


def test_a_well_that_was_stopped_is_still_to_come(tmp_path):
    data = tmp_path / "data"
    wells, live = plates.screen_plate("P3", 4, 6, {"drug": 1.0})
    stopped = live.popitem()[0]
    plates.register(data, wells)
    plates.score(data, wells, live)
    plates.end_stack(data, "P3", stopped, StackEnd.STOPPED, "stopped in the middle")
    text = written(data).text
    assert "of 24 wells 1 stopped. Every figure here may still change." in text
    assert "failed" not in text


# What may be missing


def one_well(data: Path, treatment: Treatment, name: str = "P1") -> PlateMap:
    wells = plates.plate_map(name, {WellId(0, 0): treatment})
    plates.register(data, wells)
    return wells


def test_a_run_still_going_is_said_loudly(tmp_path):
    data = tmp_path / "data"
    one_well(data, plates.UNTREATED)
    page = written(data)
    assert "Provisional" in page.text
    assert "1 not imaged yet" in page.text
    assert "No control well of this plate has a figure." in page.text


def test_provisional_rows_are_provisional(tmp_path):
    data = tmp_path / "data"
    wells, live = plates.screen_plate("P1", 4, 6, {"drug": 1.0})
    plates.register(data, wells)
    plates.score(data, wells, live, final=False)
    assert "24 provisional" in written(data).text


def test_no_controls_and_no_compounds(tmp_path):
    data = tmp_path / "data"
    wells = one_well(data, Treatment(WellRole.SAMPLE))
    plates.score(data, wells, {WellId(0, 0): 1e5})
    page = written(data, pdf=tmp_path / "r.pdf")
    assert "No well of this plate holds a compound at a dose." in page.text
    assert "the plate has no untreated control" in page.text
    assert "A01 sample 100.0 43.0 100 210 32.3 — not judged 16/16" in page.text  # its viability is not known


def test_two_plates_two_patients_and_names_that_would_break_it(tmp_path):
    data = tmp_path / "data"
    for name in ("P1", "P2"):
        doses = [plates.sample(f"drug {HOSTILE}", dose, f"pt {HOSTILE}") for dose in plates.DOSES_UM]
        doses += [plates.sample("other", dose, "Ωμέγα") for dose in plates.DOSES_UM]
        controls = [plates.UNTREATED] * 4 + [plates.KILLED] * 4
        treatments = {WellId(n // 6, n % 6): of for n, of in enumerate([*controls, *doses])}
        wells = plates.plate_map(name, treatments)
        live = {
            well: plates.FULL_UM3 * (1.0 + 0.01 * n if of is plates.UNTREATED else 0.1)
            for n, (well, of) in enumerate(treatments.items())
        }
        plates.register(data, wells)
        plates.score(data, wells, live)
    page = written(data, pdf=tmp_path / "r.pdf")
    assert page.unclosed == []
    assert "script" not in page.tags
    assert f"drug {HOSTILE}" in page.text
    assert "Overview" in page.text
    assert "2 plates" in page.text
    assert "Plate P2" not in written(data, plate="P1").text


def three_patients(data: Path, ic50s_um: dict[str, tuple[float, float, float]]) -> None:
    """A plate for each of three patients, with compounds whose IC50s are theirs."""
    random = np.random.default_rng(3)
    for number in range(3):
        patient = f"pt{number + 1}"
        treated = [
            plates.sample(name, dose, patient) for name in ic50s_um for dose in plates.DOSES_UM for _ in range(2)
        ]
        treatments = [*[plates.UNTREATED] * 8, *[plates.KILLED] * 6, *treated]
        wells = {WellId(n // 12, n % 12): of for n, of in enumerate(treatments)}
        live = {}
        for well, of in wells.items():
            alive = {plates.UNTREATED: 1.0, plates.KILLED: 0.03}.get(of)
            if alive is None:
                alive = plates.share_alive(of.dose_um, ic50s_um[of.compound][number])
            live[well] = plates.FULL_UM3 * alive * np.exp(random.normal(0, 0.03))
        plates.register(data, plates.plate_map(f"plate-{patient}", wells))
        plates.score(data, plates.plate_map(f"plate-{patient}", wells), live)


def test_compounds_are_told_across_patients_the_most_potent_first(tmp_path):
    data = tmp_path / "data"
    three_patients(data, {"weak": (8.0, 12.0, 10.0), "strong": (0.8, 1.2, 1.0), "none": (1e6, 1e6, 1e6)})
    page = written(data, pdf=tmp_path / "r.pdf")
    with Catalog.read_only(data) as catalog:
        rows = patients_rows(gather(catalog, data).curves)
    told = {row.cells[1]: row for row in rows}
    assert list(told) == ["strong", "weak", "none"]
    assert float(told["strong"].cells[2].split()[0]) == pytest.approx(1.0, rel=0.15)
    assert float(told["weak"].cells[2].split()[0]) == pytest.approx(9.9, rel=0.15)
    assert told["none"].cells[2] == words.UNKNOWN
    assert "no effect shown" in told["none"].note.lower()
    fold = float(told["weak"].cells[[column.head for column in COLUMNS].index("To the first")].split()[0])
    assert fold == pytest.approx(9.9, rel=0.2)
    assert "Across patients" in page.text
    assert page.unclosed == []
    assert "Across patients" not in written(data, plate="plate-pt1").text


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (16, 24), (32, 48)], ids=["6", "384", "1536"])
def test_every_plate_format(tmp_path, rows, columns):
    data = tmp_path / "data"
    corners = [WellId(0, 0), WellId(0, 1), WellId(rows - 1, columns - 1)]
    wells = plates.plate_map("P1", dict(zip(corners, CONTROLS_AND_ONE, strict=True)))
    plates.register(data, wells)
    plates.score(data, wells, {corners[0]: 3e5, corners[1]: 1e4})
    page = written(data, pdf=tmp_path / "r.pdf")
    assert f"({rows * columns} wells)" in page.text


CONTROLS_AND_ONE = (plates.UNTREATED, plates.KILLED, plates.sample("c", 1.0))


# Refusals


def test_no_catalog_no_plate_and_no_such_plate(tmp_path, good):
    with pytest.raises(ConfigError, match="no plate was ever run here"):
        write_report(tmp_path, tmp_path / "r.html")
    Catalog.create_or_open(tmp_path / "empty").close()
    with pytest.raises(ConfigError, match="no plate was registered here yet"):
        write_report(tmp_path / "empty", tmp_path / "r.html")
    with pytest.raises(ConfigError, match="there is no plate 'P9'"):
        write_report(good, tmp_path / "r.html", plate="P9")
    assert list(tmp_path.glob("*.html*")) == []


def test_a_place_that_cannot_be_written(good, tmp_path):
    with pytest.raises(StorageError, match="cannot write it"):
        write_report(good, tmp_path / "missing" / "r.html")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(StorageError, match="close the file where it is open"):
        write_report(good, tmp_path / "r.html")
    assert list(tmp_path.glob("*.partial")) == []


def test_a_catalog_that_cannot_be_written_costs_the_entry_and_not_the_report(good, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> Catalog:
        raise StorageError("the disk is read-only", where="catalog.sqlite", do="mount it for writing")

    monkeypatch.setattr(Catalog, "create_or_open", refuse)
    done = write_report(good, tmp_path / "r.html")
    assert read(tmp_path / "r.html").unclosed == []
    assert done.not_recorded == "catalog.sqlite: the disk is read-only; mount it for writing"


def test_a_damaged_image_costs_its_picture_and_nothing_else(tmp_path):
    data = tmp_path / "data"
    wells = one_well(data, plates.UNTREATED)
    plates.score(data, wells, {WellId(0, 0): 3e5})
    plates.store_images(data, wells, plates.plan_of(StackKey("P1", WellId(0, 0))), 1.0)
    slab = ngff.shard_path(ngff.image_path(data, StackKey("P1", WellId(0, 0))) / "0", 0, 0)
    slab.write_bytes(slab.read_bytes()[:100])
    page = written(data)
    assert "Not shown: A01" in page.text
    assert "Wells" in page.text


@pytest.fixture
def command(warm_program: tuple[str]) -> list[str]:
    return [*warm_program, "report"]


def test_the_command_names_its_files_and_itself(command, good, tmp_path):
    out = tmp_path / "my report.html"
    environment = {**os.environ, "SPHEROIDD_USER": "Lise"}
    done = subprocess.run([*command, good, "-o", out], capture_output=True, text=True, env=environment, check=True)
    assert str(out) in done.stdout
    assert "by Lise" in read(out).text


def test_the_command_refuses_one_name_for_both(command, good, tmp_path):
    out = tmp_path / "r.html"
    done = subprocess.run([*command, good, "-o", out, "--pdf", out], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "different files" in done.stderr
