"""`make release`: source distribution and wheel in dist/, looked into, and the wheel tried where nothing else is.

    python -m tests.release [--no-install]

Installs the wheel into an environment of its own in a temporary folder, runs a small demonstration from it there, and
looks at its rows and its report. Minutes, most of them for downloading torch; `--no-install` ends before that.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tests.places import ROOT

FOLDERS = {"acquisition", "daemon", "inference", "protocols", "sim_emulator", "testing"}
PAPERS = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "constraints.txt"}
EXAMPLES = "share/spheroidd/examples"


def shipped() -> set[str]:
    """The files that both distributions hold: what git has in the rooms, and the examples."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {name for name in listed if name.split("/")[0] in {*FOLDERS, "api", "examples"}}


def in_wheel(name: str, version: str) -> str:
    """Where a wheel has a file of the tree."""
    first, _, rest = name.partition("/")
    if first == "examples":
        return f"spheroidd-{version}.data/data/{EXAMPLES}/{rest}"
    return f"spheroidd/{rest}" if first == "api" else f"spheroidd/{name}"


def faults_of(held: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """What a distribution lacks, and what it should not have: tests, benchmarks, compiled files."""
    names = set(held)
    lacks = [f"lacks {name}" for name in sorted(set(wanted) - names)]
    strange = {"tests", "bench", "deploy"}
    return lacks + [
        f"holds {name}"
        for name in sorted(names)
        if strange & set(name.split("/")[:2]) or name.endswith((".pyc", ".nbi", ".nbc"))
    ]


def look_into(folder: Path) -> tuple[Path, list[str]]:
    """The wheel, and what is wrong with it and the source distribution."""
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as opened:
        faults = faults_of(opened.namelist(), (in_wheel(name, version) for name in shipped()))
    with tarfile.open(source) as archive:
        held = [name.partition("/")[2] for name in archive.getnames()]
    return wheel, [f"{wheel.name} {fault}" for fault in faults] + [
        f"{source.name} {fault}" for fault in faults_of(held, shipped() | PAPERS)
    ]


def try_out(wheel: Path, folder: Path) -> None:
    """A demonstration from the installed wheel, in a folder that holds nothing else; an error where it fails."""
    call(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    call(scripts / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    call(scripts / "spheroidd", "demo", "data", "--preset", "unit", cwd=folder)
    rows = json.loads(call(scripts / "spheroidd", "results", "data", "--json", cwd=folder))
    if not rows or any(row["status"] != "final" for row in rows):
        sys.exit(f"the demonstration's rows: {[row['status'] for row in rows]}")
    for path in (folder / "data" / "report.html", folder / "venv" / EXAMPLES / "emulator.toml"):
        if not path.is_file():
            sys.exit(f"{path.relative_to(folder)} is missing")
    call(scripts / "spheroidd", "config", "check", folder / "venv" / EXAMPLES / "emulator.toml", cwd=folder)
    print(f"{wheel.name}: installed elsewhere, {len(rows)} wells of a demonstration are final")


def call(*command: str | Path, cwd: Path = ROOT) -> str:
    """A command's output; ends this program where it fails. No module of this tree is in its reach."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(words)} ended with {done.returncode}")
    return done.stdout


def main() -> None:
    """Build, look, try."""
    folder = ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("*.whl"), *folder.glob("*.tar.gz")):
        old.unlink()
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    print(call(sys.executable, "-m", "twine", "check", "--strict", *folder.glob("spheroidd-*")))
    wheel, faults = look_into(folder)
    if faults:
        sys.exit("\n".join(faults))
    if "--no-install" not in sys.argv:
        with tempfile.TemporaryDirectory(prefix="spheroidd-release-") as elsewhere:
            try_out(wheel, Path(elsewhere))
    print(f"{folder} holds the release")


if __name__ == "__main__":
    main()
