"""The example, as its header says it: a fake LAS X in one process, `spheroidd run` in another, rows at last."""

import contextlib
import re
import shutil
import signal
import sys

import pytest

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.emulation.fake_lasx import check_instrument
from spheroidd.daemon.monitoring.preflight import Verdict, examine
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.results import WellStatus
from tests.acquisition.sources.leica.rig import fake_las_x
from tests.faults.plate_runs import spheroidd
from tests.places import EXAMPLES
from tests.warm_start import COMMAND, talking

EMULATE = re.compile(r"^#   spheroidd (emulate .*)$", re.MULTILINE)


@contextlib.contextmanager
def emulated_las_x(folder, *options):
    """The command of the example's header, on a free port: its process and the port."""
    told = EMULATE.search((EXAMPLES / "leica-cam.toml").read_text(encoding="utf-8"))
    assert told is not None
    command = told[1].replace("examples/", f"{EXAMPLES.as_posix()}/").split()
    command[1] = str(folder / "demo-data" / "leica-images")
    with talking(COMMAND[-1], *command, "--port", "0", *options) as (process, said):
        yield process, int(re.search(r"listens at 127\.0\.0\.1:(\d+) ", said.readline())[1])


def example(root, las_x_port, /, **changes):
    """The example's configuration, its paths below `root`."""
    (root / "examples").mkdir()
    shutil.copy(EXAMPLES / "leica-cam.csv", root / "examples")
    text = (EXAMPLES / "leica-cam.toml").read_text(encoding="utf-8").replace("port = 8895", f"port = {las_x_port}")
    for key, value in changes.items():
        text, n_changed = re.subn(rf"(?m)^{key} = [^#\n]+", f"{key} = {value} ", text)
        assert n_changed == 1
    file = root / "examples" / "leica-cam.toml"
    file.write_text(text + "\n[service]\nenabled = false\n", encoding="utf-8")
    return file


def test_the_example_drives_a_plate_to_final_rows(tmp_path):
    with emulated_las_x(tmp_path) as (las_x, port):
        file = example(tmp_path, port, settle_s=1.0)
        run = spheroidd("run", str(file), "--plain", cwd=tmp_path)
        assert run.returncode == 0, run.stdout + run.stderr
        if sys.platform != "win32":
            las_x.send_signal(signal.SIGINT)
            assert las_x.wait(20) == 0
    with CatalogReader.read_only(tmp_path / "demo-data" / "leica-cam") as catalog:
        rows = catalog.results("leica-cam")
        stored = [stack.n_slices_acked for stack in catalog.stacks("leica-cam")]
        frames = catalog.query("SELECT * FROM frames_view WHERE well = 'B03' AND z = 2 ORDER BY channel", {})
    assert sorted(row.well for row in rows) == ["A01", "A02", "A03", "B01", "B02", "B03"]
    assert {row.status for row in rows} == {WellStatus.FINAL}
    assert stored == [48] * 6
    places = [[frame[name] for name in ("channel", "x_um", "y_um", "z_um", "exposure_ms")] for frame in frames]
    assert places == [["488", 18000.0, 9000.0, 2.0, 5.0], ["561", 18000.0, 9000.0, 2.0, 5.0]]


def source_check(file):
    (check,) = [check for check in examine(file) if check.verdict is Verdict.FAIL]
    return f"{check.what}; {check.do}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": '"nowhere"'}, r"source\.folder = .*nowhere: there is no such folder; .*mount the share"),
        ({"host": '"nohost.invalid"'}, r"source\.host: the computer 'nohost\.invalid' is not known"),
        ({"port": "0"}, r"leica-cam\.toml, line \d+: source\.port: it is 0; write 1 or more"),
        ({"template": '""'}, r"line \d+: source\.template"),
        ({"template": '"a.xml"'}, r"line \d+: source\.template: template is 'a\.xml'; write the name without folder"),
        ({"n_z": '"many"'}, r"source\.n_z: it is 'many'; write a whole number"),
        ({"job": "-8"}, r"source\.job: it is -8; write 0 or more"),
        ({"scan": '"all"'}, r"source\.scan: it is 'all'; write 'well' or 'plate'"),
        ({"channels": '{ "405" = 0 }'}, r"source\.channels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_doctor_says_what_is_wrong_with_each_setting(tmp_path, changes, message):
    images = tmp_path / "demo-data" / "leica-images"
    images.mkdir(parents=True)
    with fake_las_x(images) as server:
        assert re.search(message, source_check(example(tmp_path, server.address[1], **changes)))


def test_the_doctor_asks_las_x_and_reckons_the_disk(tmp_path):
    images = tmp_path / "demo-data" / "leica-images"
    images.mkdir(parents=True)
    with fake_las_x(images) as server:
        checks = {check.name: check for check in examine(example(tmp_path, server.address[1]))}
        assert server.commands[0].endswith("/cmd:getinfo /dev:stage")
    assert "leica-cam answers" in checks["source"].what
    assert "GB at most are to come" in checks["disk space"].what


def test_the_doctor_says_that_las_x_does_not_run(tmp_path):
    (tmp_path / "demo-data" / "leica-images").mkdir(parents=True)
    with fake_las_x(tmp_path) as server:
        port = server.address[1]
    told = source_check(example(tmp_path, port))
    assert re.search(rf"LAS X at 127\.0\.0\.1:{port}: no connection .*; start LAS X", told)


def test_a_kind_of_instrument_that_cannot_be_emulated_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--as is 'zeiss'; write leica-cam"):
        check_instrument("zeiss")
