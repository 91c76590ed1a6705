"""Networks and their peers on every real volume with a truth: `python -m bench.real` prints JSON.

By voxel (Dice, precision, recall) and by object (F1 at an IoU of one half, and how many were found of how many). Peers:
Otsu's threshold after the background was taken off; a random forest that learnt from three drawn planes of the same
volume, so that it is no stranger to it; the project's 2-D network. Networks have seen emulated plates only and go
through the whole program, each volume once as the live and once as the dead channel.

Parts: `--volumes embryo8,1135`, `--peers otsu,forest,2d` (or none), models by name or path; `--cell-um 5.4` states how
wide their cells are. No network was chosen by 1136 or stardist.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tifffile
import typer
import zarr
from numpy.typing import NDArray

from bench.ablation import BUDGET, NETWORK
from bench.real_peers import Mask, forest, objects_of, otsu
from bench.real_volumes import DATA, VOLUMES, Volume
from bench.study import CACHE, OUT, kept_row, plates, say, trained
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import read_label
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.inference.agreement.instances import instance_agreement
from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.network.model_card import DEFAULT_MODEL, ModelCard, find_weights
from spheroidd.inference.network.weights import save_model
from spheroidd.inference.training.stack import stacks_digest

COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
CHANNELS = {"live": "488", "dead": "561"}
PEERS = ("otsu", "forest", "2d")
LEARNT_FROM = (("demo", range(1000, 1003)),)  # what the 2-D network learns from


def figures(volume: Volume, mask: Mask, objects: NDArray[np.integer[Any]]) -> dict[str, float]:
    """Of one answer: voxels and objects."""
    voxels = asdict(agreement(mask, volume.objects > 0))
    ones = instance_agreement(objects, volume.objects)
    del voxels["iou"]
    rounded = {name: round(value, 3) for name, value in voxels.items()}
    return {**rounded, "f1": round(ones.f1, 3), "objects": ones.found, "true": ones.true}


def through_program(
    volume: Volume, label: str, model: str, cell_um: float | None = None
) -> tuple[Mask, NDArray[np.integer[Any]]]:
    """Mask and objects as `spheroidd replay` leaves them of a plate that is this volume, in one channel."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tifffile.imwrite(folder / "raw.tif", volume.pixels)
        head, row = f"well,path_{CHANNELS[label]},role,pixel_um,z_step_um", "A01,raw.tif,sample"
        (folder / "map.csv").write_text(f"{head}\n{row},{volume.pixel_um},{volume.z_step_um}\n")
        data = folder / "data"
        replay = ["replay", str(folder / "map.csv"), str(data), "--model", model]
        replay += [] if cell_um is None else ["--cell-um", str(cell_um)]
        done = subprocess.run([*COMMAND, *replay], check=False, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 1: its row says that somebody should look
            sys.exit(done.stderr)
        with Catalog.read_only(data) as catalog:
            (key,) = [one.key for one in catalog.result_rows()]
        numbered = zarr.open_group(ngff.label_path(data, key, label + ngff.OBJECTS), mode="r")
        steps = numbered.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]  # type: ignore[index,call-overload]
        return read_label(data, key, label), _at_own_sampling(numbered["0"][...], steps[0]["scale"], volume)  # type: ignore[index,call-overload]


def _at_own_sampling(labels: Any, spacing_um: Any, volume: Volume) -> NDArray[np.integer[Any]]:
    """Labels at another sampling, brought to the volume's: the nearest."""
    own = (volume.z_step_um, volume.pixel_um, volume.pixel_um)
    places = (
        np.minimum(((np.arange(n) + 0.5) * step / wide).astype(int), size - 1)
        for n, step, wide, size in zip(volume.pixels.shape, own, spacing_um, labels.shape, strict=True)
    )
    nearest: NDArray[np.integer[Any]] = labels[np.ix_(*places)]
    return nearest


def network_2d(cache: Path) -> str:
    """The path of the study's 2-D U-Net, trained as `bench.ablation` does, on some plates; kept in bench/out."""
    parts = [plates(kind, seeds, NETWORK.spacing_um, cache) for kind, seeds in LEARNT_FROM]
    stacks = [stack for part in parts for of_patient in part.values() for stack in of_patient]
    settings = replace(BUDGET, network=replace(NETWORK, architecture="SlicewiseUNet"))
    place, _ = kept_row(OUT / "real" / "2d", (settings, stacks_digest(stacks)))
    weights = place / "slicewise.safetensors"
    if not weights.exists():
        say(f"the 2-D network: {settings.steps} steps")
        model = trained(stacks, settings, place).model
        save_model(model, place, ModelCard("slicewise", model.settings, halo=16, sha256=""))
    return str(weights)


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Names or paths; without, the shipped one.")] = None,
    volumes: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(VOLUMES),
    peers: Annotated[str, typer.Option(help="Which, separated by commas; or none.")] = ",".join(PEERS),
    cell_um: Annotated[float | None, typer.Option(help="How wide cells are stated to be.")] = None,
    cache: Annotated[Path, typer.Option(help="Where rendered plates are kept.")] = CACHE,
) -> None:
    """Print the table; progress goes to the standard error."""
    if not DATA.is_dir():
        sys.exit(f"{DATA}: the recordings are not there; set SPHEROIDD_TEST_DATA")
    asked = set() if peers == "none" else set(peers.split(","))
    if wrong := (asked - set(PEERS)) | (set(volumes.split(",")) - set(VOLUMES)):
        sys.exit(f"there is no {', '.join(sorted(wrong))}; volumes: {', '.join(VOLUMES)}; peers: {', '.join(PEERS)}")
    networks = {name: str(find_weights(name)) for name in models or [DEFAULT_MODEL]}
    if "2d" in asked:
        networks["2-D network"] = network_2d(cache)
    found: dict[str, dict[str, Any]] = {}
    for name in volumes.split(","):
        volume, rows = VOLUMES[name](), found.setdefault(name, {})
        for peer, how in (("otsu", otsu), ("forest", forest)):
            if peer in asked:
                mask = how(volume)
                rows[peer] = figures(volume, mask, objects_of(mask, volume))
        for called, model in networks.items():
            for label in CHANNELS:
                say(f"{name}: {called} as {label}")
                rows[f"{called}, {label}"] = figures(volume, *through_program(volume, label, model, cell_um))
    print(json.dumps({"bench": "real", "cell_um": cell_um, **found}, indent=1))


if __name__ == "__main__":
    typer.run(main)
