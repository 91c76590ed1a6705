"""What others write against the ports: a source of a package of its own is installed, keeps the contract, and runs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# What a build of the package's pyproject.toml writes, with [project.entry-points."spheroidd.sources"].
INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: ramp-scope\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry_points.txt": "[spheroidd.sources]\nramp = ramp_scope:RampSource\n",
}
# Two wells that are imaged in order; each slice is brighter than the one before.
MODULE = '''"""A microscope that shows a ramp."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import Frame, StackKey, StackPlan


class RampSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["ramp"] = "ramp"
    n_z: int = 12


class RampSource:
    Settings = RampSettings

    def __init__(self, settings, plate_map, plate_name, clock):
        if plate_map is None:
            raise ConfigError("a ramp needs a plate map", where="[plate]", do="name one with map = ...")
        self.plate_map, self._n_z, self._clock = plate_map, settings.n_z, clock

    def check(self):
        pass

    def plans(self):
        channels = ("488", "561")
        return [
            StackPlan(StackKey(self.plate_map.name, entry.well), channels, self._n_z, 48, 64, 0.5, 1.0)
            for entry in self.plate_map.imaged()
        ]

    def frames(self, plan, wanted):
        for index in plan.indices():
            if index in wanted:
                pixels = np.full((plan.height, plan.width), 100 + index.z, np.uint16)
                pixels[10:20, 10:20] += 500
                pixels.flags.writeable = False
                yield Frame(plan.key, index, pixels, self._clock.now())

    def close(self):
        pass
'''
CONTRACT = """from ramp_scope import RampSettings, RampSource
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import SourceContract


class TestRamp(SourceContract):
    def make_source(self, folder, clock):
        wells = [PlateWell(WellId(0, n), Treatment(WellRole.NEGATIVE_CONTROL)) for n in range(2)]
        return RampSource(RampSettings(), PlateMap("P1", tuple(wells)), "P1", clock)
"""
RUN = """[plate]
name = "P1"
map = "map.csv"
[source]
kind = "ramp"
[store]
min_free_gb = 0.0
[service]
enabled = false
[inference]
model = "threshold"
normalisation = "stack"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where pip installed the package, as it would beside spheroidd."""
    folder = tmp_path_factory.mktemp("plugin")
    wheel, info = folder / "ramp_scope-1.0-py3-none-any.whl", "ramp_scope-1.0.dist-info"
    files = {"ramp_scope.py": MODULE, **{f"{info}/{name}": text for name, text in INFO.items()}}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    command = [*pip, "--target", str(folder / "site"), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that has the package too, in a working directory of its own."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_it_keeps_the_contract_that_ships(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "test_ramp.py").write_text(CONTRACT, encoding="utf-8")
    done = python(installed, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis")
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


def test_a_contract_that_is_broken_says_what_came(installed: Path, tmp_path: Path) -> None:
    broken = CONTRACT.replace("RampSource(Ramp", "Half(Ramp").replace(
        "\n\nclass",
        "\n\nclass Half(RampSource):\n    def frames(self, plan, wanted):\n        "
        "return (f for f in super().frames(plan, wanted) if f.index.z)\n\n\nclass",
        1,
    )
    (tmp_path / "test_ramp.py").write_text(broken, encoding="utf-8")
    done = python(installed, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis")
    assert done.returncode == 1
    assert "SliceIndex(channel='488', z=0)" in done.stdout, "the assertion is not rewritten"


def test_its_plate_is_run_by_its_kind(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "plate.toml").write_text(RUN, encoding="utf-8")
    (tmp_path / "map.csv").write_text("well,role\nA01,negative_control\nA02,positive_control\n", encoding="utf-8")
    main = "from spheroidd.daemon.cli import main; main()"
    done = python(installed, tmp_path, "-c", main, "run", "plate.toml", "--plain")
    assert done.returncode == 1, done.stdout + done.stderr  # the example's two channels are one image, which is told
    assert "2 of 2 wells have a row; 48 slices" in done.stdout
    rows = json.loads(python(installed, tmp_path, "-c", main, "results", "spheroidd-data", "--json").stdout)
    assert {(row["well"], row["n_slices_acked"]) for row in rows} == {("A01", 24), ("A02", 24)}
    assert {row["live_um3"] > 0 for row in rows} == {True}
