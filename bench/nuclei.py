"""Real nuclei through the whole pipeline, beside Otsu's threshold: `python -m bench.nuclei` prints JSON.

The shipped weights have seen emulated spheroids only. Each recording goes in as the one channel of a stack, once as
propidium iodide (the mask of dead nuclei is compared) and once as Calcein (the mask of live bodies is). Otsu's
threshold is taken in 3-D after the same median, clipping and normalisation.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from bench.places import REAL_DATA
from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.preprocessing.intensity import Histogram, normalise
from spheroidd.inference.preprocessing.median import median3

COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
DATA = REAL_DATA / "nuclei_gt"


class Recording(NamedTuple):
    """A stack with its truth; pixel_um and z_step_um as its authors give them."""

    pixels: NDArray[Any]
    truth: NDArray[np.bool_]
    pixel_um: float
    z_step_um: float


def recordings() -> dict[str, Recording]:
    """The sets of the test data that have a semantic truth."""
    found = {
        "embryo8": Recording(
            tifffile.imread(DATA / "embryo8_raw.tif"), tifffile.imread(DATA / "embryo8_nsn.tif") > 0, 0.8, 1.75
        )
    }
    for name in ("1135", "1136"):
        with h5py.File(DATA / f"{name}_mini.h5") as file:
            found[name] = Recording(file["raw"][:], file["label"][:] > 0, 0.127, 0.284)
    return found


def otsu(recording: Recording) -> dict[str, float]:
    """3-D Otsu after the same pre-processing."""
    filtered = median3(recording.pixels)
    histogram = Histogram()
    histogram.add(filtered)
    flat = normalise(filtered, histogram.limits())
    return _rounded(asdict(agreement(flat > threshold_otsu(flat), recording.truth)))


def through_pipeline(recording: Recording, channel: str, label: str, model: str = "default") -> dict[str, float]:
    """`spheroidd replay` and `spheroidd evaluate`, as a user would."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tifffile.imwrite(folder / "raw.tif", recording.pixels)
        np.save(folder / "truth.npy", recording.truth)
        (folder / "map.csv").write_text(
            f"well,path_{channel},role,pixel_um,z_step_um\nA01,raw.tif,sample,{recording.pixel_um},{recording.z_step_um}\n"
        )
        data = str(folder / "data")
        replay = ["replay", str(folder / "map.csv"), data, "--model", model]
        done = subprocess.run([*COMMAND, *replay], check=False, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 1: its row says that somebody should look
            sys.exit(done.stderr)
        options = ["evaluate", data, "--well", "A01", "--truth", str(folder / "truth.npy"), "--label", label, "--json"]
        done = subprocess.run([*COMMAND, *options], check=True, capture_output=True, text=True)
    return _rounded({name: value for name, value in json.loads(done.stdout).items() if isinstance(value, float)})


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"{DATA}: the recordings are not there; set SPHEROIDD_TEST_DATA")
    found = {
        name: {
            "otsu": otsu(recording),
            "as dead nuclei (561)": through_pipeline(recording, "561", "dead"),
            "as live bodies (488)": through_pipeline(recording, "488", "live"),
        }
        for name, recording in recordings().items()
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
