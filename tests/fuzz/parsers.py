"""Every parser of what comes from outside: what it is given when all is well, and how it is given other bytes.

A parser is a function of a folder that it may write to. It returns the good inputs, and what takes one input; what
that raises besides a SpheroiddError (or a pydantic/protobuf refusal that its caller translates) is a finding.
"""

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import mrc
import numpy as np
import openpyxl
from google.protobuf.message import DecodeError

from spheroidd.acquisition.images.names.leica import is_field_metadata, leica_letters
from spheroidd.acquisition.images.open_stack import list_stacks
from spheroidd.acquisition.images.raw_frames import open_raw
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.plates.labware_formats import read_plate_format
from spheroidd.acquisition.sources.leica.cam_messages import CamReader
from spheroidd.daemon.analysis.fit_table import TableColumns, read_fit_table, table_curves
from spheroidd.daemon.config.model import load_config
from spheroidd.daemon.planning.positions_import import import_positions
from spheroidd.daemon.planning.useq_export import export_useq
from spheroidd.daemon.planning.useq_import import import_useq
from spheroidd.daemon.service.messages import stack_plan
from spheroidd.daemon.service.push_message import PushMessage
from spheroidd.daemon.service.push_stream import _frame
from spheroidd.daemon.service.tokens import TOKENS_NAME, Role, TokenFile
from spheroidd.daemon.verification.scrub_state import ScrubState
from spheroidd.inference.annotations.trakem2 import read_trakem2
from spheroidd.inference.network.bioimageio import RDF, export_package, import_package
from spheroidd.inference.network.model_card import find_weights, read_card
from spheroidd.inference.viability.plate_reader_files import read_reader_file
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.acquisition.images.test_file_sets import write_micromanager
from tests.acquisition.images.test_recorded_formats import write_ndtiff
from tests.acquisition.plates.test_labware_formats import OWN
from tests.acquisition.sources.leica.test_leica_experiments import write_lof, write_project
from tests.acquisition.sources.test_replay import write_imagej, write_ngff_04, write_ngff_05, write_ome, write_ome_zlib
from tests.daemon.planning import test_positions_import as positions
from tests.inference.annotations.test_annotations import SQUARE, area_list, project
from tests.inference.viability.test_plate_reader_files import picture
from tests.places import EXAMPLES, REAL_DATA

Take = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Parser:
    """Its name in the table, and what sets it up in a folder."""

    name: str
    set_up: Callable[[Path], tuple[Sequence[bytes], Take]]


def _opened(path: Path) -> None:
    """Open a recording and read a plane of it, as a run does."""
    with RecordedStack({"": path}) as stack:
        for channel in stack.channels[:1]:
            stack.plane(SliceIndex(channel, 0))


def _file(name: str, take: Callable[[Path], object]) -> Callable[[Path], Take]:
    def at(folder: Path) -> Take:
        path = folder / name

        def give(content: bytes) -> None:
            path.write_bytes(content)
            take(path)

        return give

    return at


def _tiff(folder: Path) -> tuple[Sequence[bytes], Take]:
    seeds = []
    for write in (write_ome, write_imagej, write_ome_zlib):
        write(folder / "seed.ome.tif")
        seeds.append((folder / "seed.ome.tif").read_bytes())
    write_micromanager(folder / "mm.tif", "A01", "master.ome.tif")
    seeds.append((folder / "mm.tif").read_bytes())
    return seeds, _file("a.ome.tif", _opened)(folder)


def _zarr(version: str, name: str) -> Callable[[Path], tuple[Sequence[bytes], Take]]:
    def set_up(folder: Path) -> tuple[Sequence[bytes], Take]:
        image = folder / "a.ome.zarr"
        (write_ngff_05 if version == "0.5" else write_ngff_04)(image)
        victim = image / name
        seed = victim.read_bytes()

        def give(content: bytes) -> None:
            victim.write_bytes(content)
            _opened(image)

        return [seed], give

    return set_up


def _leica(folder: Path) -> tuple[Sequence[bytes], Take]:
    path = write_project(folder / "project", "A01", lof=True)
    xlif = folder / "project" / "A01.xlif"
    good = {path: path.read_bytes(), xlif: xlif.read_bytes()}
    write_lof(folder / "a.lof", "A01")

    def give(content: bytes) -> None:
        victim = path if b"Reference" in content else xlif
        for one, kept in good.items():
            one.write_bytes(content if one == victim else kept)
        list_stacks(path)
        _opened(path / "A01")

    return list(good.values()), give


def _series(path: Path) -> None:
    for name in list_stacks(path)[:2]:
        with suppress(StackError):  # a series of a kind that is no stack
            _opened(path / name / "λ=0")


def _lof(folder: Path) -> tuple[Sequence[bytes], Take]:
    write_lof(folder / "seed.lof", "A01")
    return [(folder / "seed.lof").read_bytes()], _file("a.lof", _opened)(folder)


def _lif(folder: Path) -> tuple[Sequence[bytes], Take]:
    """A real one: nobody else writes them."""
    path = REAL_DATA / "leica" / "LeicaLASX_wavelength-sweep_example.lif"
    return [path.read_bytes()] if path.is_file() else [], _file("a.lif", _series)(folder)


def _deltavision(folder: Path) -> tuple[Sequence[bytes], Take]:
    frames = np.random.default_rng(0).integers(0, 4000, (6, 8, 9)).astype(np.uint16)
    mrc.imsave(str(folder / "seed.dv"), frames)

    def take(path: Path) -> None:
        open_raw(path)

    return [(folder / "seed.dv").read_bytes()], _file("a.dv", take)(folder)


def _ndtiff(folder: Path) -> tuple[Sequence[bytes], Take]:
    planes = {"p": {("488", z): np.full((6, 5), z + 1, np.uint16) for z in range(3)}}
    write_ndtiff(folder / "set_1", ["p"], planes)
    index = folder / "set_1" / "NDTiff.index"
    seed = index.read_bytes()

    def give(content: bytes) -> None:
        index.write_bytes(content)
        _opened(folder / "set_1")

    return [seed], give


MAP = b"""well,role,compound,dose_um,patient
A01,negative_control,,0,P1
A02,positive_control,,,P1
B01,sample,doxorubicin,"0,5",P1
B02,sample,doxorubicin,"1,25",P2
"""
TABS = MAP.replace(b'"', b"").replace(b",", b"\t").replace(b"0\t5", b"0,5").replace(b"1\t25", b"1,25")
GRID = b"role,1,2,3\r\nA,untreated,untreated,killed\r\nB,sample,sample,sample\r\n"


def _map(folder: Path) -> tuple[Sequence[bytes], Take]:
    seeds = [MAP, GRID, TABS, MAP.decode().encode("utf-16"), (EXAMPLES / "plan-96.csv").read_bytes()]
    return seeds, _file("map.csv", read_plate_map)(folder)


def _workbook(folder: Path) -> tuple[Sequence[bytes], Take]:
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in csv.reader(MAP.decode().replace("0,5", "0.5").replace("1,25", "1.25").splitlines()):
        book.active.append(row)  # type: ignore[union-attr]
    book.save(out)
    with zipfile.ZipFile(out) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = [name for name in members if name.endswith((".xml", ".rels"))]
    take = _file("map.xlsx", read_plate_map)(folder)

    def give(content: bytes) -> None:
        if content[:2] == b"PK":
            take(content)
            return
        changed = io.BytesIO()
        victim = names[len(content) % len(names)] if content[:1] != b"<" else _owner(content)
        with zipfile.ZipFile(changed, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, content if name == victim else member)
        take(changed.getvalue())

    def _owner(content: bytes) -> str:
        return max(names, key=lambda name: sum(a == b for a, b in zip(members[name], content, strict=False)))

    return [out.getvalue(), *(members[name] for name in names)], give


DOSES = b"""patient;compound;dose_nM;viability_pct
P1;dox;0;100
P1;dox;1,5;90
P1;dox;15;60
P1;dox;150;20
P1;dox;1500;5
"""


def _doses(folder: Path) -> tuple[Sequence[bytes], Take]:
    columns = TableColumns("dose_nM", "viability_pct", by=("compound",))

    def take(path: Path) -> None:
        table = read_fit_table(path)
        table_curves(table, replace(columns, dose=table.columns[min(2, len(table.columns) - 1)]))

    seeds = [
        DOSES,
        DOSES.replace(b"1,5;", b"1.5;").replace(b";", b","),
        DOSES.decode().encode("utf-16"),
        DOSES.replace(b";", b"\t"),
    ]
    return seeds, _file("doses.csv", take)(folder)


READER = ("##BLOCKS= 1\r\n" + picture("\t37.0\t0.5\tError", "\t\t\t-0.1") + "~End\r\n").encode("latin-1")
LABELLED = b"Well,570,690\nA1,0.5,0.05\nA2,OVER,0.06\nB1,0.4,0.05\n"
GRID_OF_READER = b"Results\n<>;1;2;3\nA;0,51;0,52;0,53\nB;0,41;0,42;0,43\n"


def _reader(folder: Path) -> tuple[Sequence[bytes], Take]:
    return [READER, LABELLED, GRID_OF_READER], _file("mtt.txt", read_reader_file)(folder)


def _config(folder: Path) -> tuple[Sequence[bytes], Take]:
    for path in EXAMPLES.iterdir():
        if path.is_file() and path.stat().st_size < 100_000:
            shutil.copy(path, folder)
    return [path.read_bytes() for path in sorted(EXAMPLES.glob("*.toml"))], _file("x.toml", load_config)(folder)


def _package(folder: Path) -> tuple[Sequence[bytes], Take]:
    export_package(None, folder / "good.zip", author="A. Person")
    with zipfile.ZipFile(folder / "good.zip") as archive:
        rdf = archive.read(RDF)

    def give(content: bytes) -> None:
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.writestr(RDF, content)
        import_package(folder / "a.zip", folder / "imported")

    return [rdf], give


def _card(folder: Path) -> tuple[Sequence[bytes], Take]:
    weights = find_weights()
    (folder / "m.safetensors").write_bytes(b"")
    return [weights.with_suffix(".json").read_bytes()], _file(
        "m.json", lambda path: read_card(path.with_suffix(".safetensors"))
    )(folder)


def _push(folder: Path) -> tuple[Sequence[bytes], Take]:
    plan = StackPlan(StackKey("P1", WellId(0, 0)), ("488", "561"), 3, 4, 5, 0.5, 1.0)
    opened = wire.PushPlan(
        plate="P1", well="A01", channels=["488", "561"], n_z=3, height=4, width=5, pixel_um=0.5, z_step_um=1.0
    )
    taken = wire.PushedSlice(channel="488", z=1, pixels=bytes(40), acquired_s=1.0, metadata={"a": "b"})
    large = wire.PushedSlice(channel="488", z=1, pixels=bytes(20_000))

    def give(content: bytes) -> None:
        with suppress(DecodeError):  # gRPC answers it
            message = PushMessage.parse(content)
            if message.open is not None:
                stack_plan(message.open)
            if message.slice is not None:
                frame: Frame = _frame(message.slice, message.pixels, plan)
                frame.check(plan)

    messages = (wire.PushSlicesRequest(open=opened), *(wire.PushSlicesRequest(slice=one) for one in (taken, large)))
    return [message.SerializeToString() for message in messages], give


def _labware(folder: Path) -> tuple[Sequence[bytes], Take]:
    return [json.dumps(OWN).encode()], _file("plate.json", read_plate_format)(folder)


def _cam(folder: Path) -> tuple[Sequence[bytes], Take]:
    said = b"/relpath:exp 1\\slide--S00\\chamber--U01--V00\\field--X00--Y00\\image--L0000--Z00--C00.ome.tif\r\n"
    other = b"/app:matrix /sys:0 /dev:stage /info_for:me /unit:meter /xpos:1e-3 /ypos:-0.01 /zpos:0\0"

    def give(content: bytes) -> None:
        reader = CamReader()
        reader.feed(content[: len(content) // 2])
        reader.feed(content[len(content) // 2 :])
        reader.unended()

    return [said, other], give


def _leica_names(folder: Path) -> tuple[Sequence[bytes], Take]:
    seed = b"exp/slide--S00/chamber--U00--V00/field--X00--Y00/metadata/image--L0000--S00--U00--V00--J07--T0000.ome.xml"

    def give(content: bytes) -> None:
        name = content.decode("utf-8", "replace")
        leica_letters(name)
        is_field_metadata(name)

    return [seed], give


def _tokens(folder: Path) -> tuple[Sequence[bytes], Take]:
    token = TokenFile(folder).create("a", Role.VIEWER, 3600.0)
    path = folder / TOKENS_NAME
    seed = path.read_bytes()

    def give(content: bytes) -> None:
        path.write_bytes(content)
        TokenFile(folder).authenticate(token)

    return [seed], give


def _scrub(folder: Path) -> tuple[Sequence[bytes], Take]:
    ScrubState(1.0, 2.0, 3, 4, {"P1/A01/0": "ab"}, {}).write(folder)
    path = folder / "scrub.state.json"
    return [path.read_bytes()], _file(path.name, lambda path: ScrubState.read(path.parent))(folder)


def _trakem2(folder: Path) -> tuple[Sequence[bytes], Take]:
    text = project(area_list(7, "live", {20: [SQUARE], 21: [SQUARE]}))
    return [text.encode("latin-1")], _file("a.xml", read_trakem2)(folder)


def _useq(folder: Path) -> tuple[Sequence[bytes], Take]:
    for name in ("plan-96.toml", "plan-96.csv"):
        shutil.copy(EXAMPLES / name, folder)
    export_useq(folder / "plan-96.toml", folder / "seed.json")
    outs = (folder / "out.toml", folder / "out.csv")

    def take(path: Path) -> None:
        for out in outs:
            out.unlink(missing_ok=True)
        import_useq(path, outs[0])

    return [(folder / "seed.json").read_bytes()], _file("plan.json", take)(folder)


def _positions(folder: Path) -> tuple[Sequence[bytes], Take]:
    spots = positions.spots(["A01", "B01", "H12", "A12"], [40.0, 41.5, 39.0, 42.0])
    seeds = [write(folder / "seed.pos", spots).read_bytes() for write in (positions.old, positions.new)]
    outs = (folder / "out.toml", folder / "out.csv")

    def take(path: Path) -> None:
        for out in outs:
            out.unlink(missing_ok=True)
        import_positions(path, outs[0], "96", {"488": "FITC"})

    return seeds, _file("list.pos", take)(folder)


PARSERS = (
    Parser("TIFF, OME-TIFF, ImageJ, Micro-Manager", _tiff),
    Parser("OME-Zarr 0.5, image", _zarr("0.5", "zarr.json")),
    Parser("OME-Zarr 0.5, array", _zarr("0.5", "0/zarr.json")),
    Parser("OME-Zarr 0.4, image", _zarr("0.4", ".zattrs")),
    Parser("OME-Zarr 0.4, array", _zarr("0.4", "0/.zarray")),
    Parser("Leica LOF", _lof),
    Parser("Leica LIF", _lif),
    Parser("Leica XLEF, XLIF", _leica),
    Parser("DeltaVision, MRC", _deltavision),
    Parser("NDTiff index", _ndtiff),
    Parser("plate map, text", _map),
    Parser("plate map, xlsx", _workbook),
    Parser("dose table", _doses),
    Parser("plate reader", _reader),
    Parser("configuration", _config),
    Parser("model package", _package),
    Parser("model card", _card),
    Parser("pushed messages", _push),
    Parser("labware", _labware),
    Parser("CAM messages", _cam),
    Parser("Leica file names", _leica_names),
    Parser("tokens", _tokens),
    Parser("state of the scrub", _scrub),
    Parser("TrakEM2 outlines", _trakem2),
    Parser("useq plan", _useq),
    Parser("Micro-Manager position list", _positions),
)
