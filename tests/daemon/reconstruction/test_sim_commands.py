"""`sim estimate` and `sim reconstruct` on files: figures with units, computed images that say so, refusals in words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner, Result

from bench.sim_scene import Scene, Stripes
from spheroidd.daemon.cli import console as cli
from spheroidd.protocols.sim_pattern import PatternEstimate
from tests.inference.reconstruction.scenes import SIZE, THREE_BEAM, slices
from tests.places import REAL_DATA, needs_real_data

SCENE = Scene(size=SIZE)
OPTICS = ["--na", "0.5", "--emission-nm", "515", "--psf-sigma-um", "0.22", "--offset", "100"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices, angle by angle: not the order that is taken without --order."""
    path = tmp_path_factory.mktemp("raw") / "raw.tif"
    frames = slices(SCENE).transpose(1, 0, 2, 3, 4).reshape(-1, SIZE, SIZE)
    tifffile.imwrite(
        path, frames, imagej=True, resolution=(4, 4), metadata={"axes": "ZYX", "unit": "um", "spacing": 0.5}
    )
    return path


def spheroidd(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_an_estimate_is_printed_and_read_back_from_json(raw: Path) -> None:
    done = spheroidd("sim", "estimate", raw, *OPTICS, "--order", "angle-z-phase", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["usable"]
    assert said["period_nm"] == pytest.approx([1000 / 1.75] * 3, rel=2e-3)
    assert PatternEstimate.from_json(json.dumps(said["estimate"])).usable
    screen = spheroidd("sim", "estimate", raw, *OPTICS, "--order", "angle-z-phase").output
    for word in ("period nm", "direction deg", "modulation", "peak/median", "known in all 3 angles"):
        assert word in screen


def test_a_measured_otf_is_a_table_of_values(raw: Path) -> None:
    values = np.exp(-2 * (np.pi * 0.22 * np.linspace(0, 2 * 0.5 / 0.515, 41)) ** 2)  # of the scene's Gaussian
    table = ",".join(f"{value:.4f}" for value in values)
    without = [*OPTICS[:4], *OPTICS[6:], "--order", "angle-z-phase", "--json"]
    read = []
    for otf in (OPTICS[4:6], ["--otf-table", table], []):
        done = spheroidd("sim", "estimate", raw, *without, *otf)
        assert done.exit_code == 0, done.output
        estimate = PatternEstimate.from_json(json.dumps(json.loads(done.stdout)["estimate"]))
        read.append([one.orders[0].modulation for one in estimate.angles])
    assert read[1] == pytest.approx(read[0], abs=5e-3)
    assert read[2] != pytest.approx(read[0], abs=0.01)  # of an ideal lens
    assert "a table has 2 or more values" in " ".join(
        spheroidd("sim", "estimate", raw, *without, "--otf-table", "0.5,0.1").output.split()
    )


def test_another_order_is_refused_and_the_one_that_fits_is_named(raw: Path) -> None:
    done = spheroidd("sim", "estimate", raw, *OPTICS)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "NOT USABLE" in said
    assert "angle-z-phase" in said


@pytest.mark.parametrize(
    ("scene", "options", "word"),
    [
        (SCENE, ["--beams", "three"], "with --beams two the pattern could be trusted"),
        (
            replace(SCENE, stripes=THREE_BEAM),
            ["--order", "angle-z-phase"],
            "read in the order z-angle-phase with --beams three the pattern could be trusted",
        ),
        (
            replace(SCENE, stripes=Stripes(0.4, angles_deg=(10.0,), phase0_deg=(5.0,))),
            ["--angles", "1"],
            "with --period-um 2.5 the pattern could be trusted",
        ),
    ],
    ids=["two beams", "three beams, another order", "coarse stripes"],
)
def test_what_else_would_fit_is_named(tmp_path: Path, scene: Scene, options: list[str], word: str) -> None:
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, slices(scene).reshape(-1, SIZE, SIZE), photometric="minisblack")
    done = spheroidd("sim", "estimate", path, *OPTICS, "--pixel-um", "0.25", *options)
    assert done.exit_code == 1
    assert word in " ".join(done.output.split())


def test_frames_that_lie_side_by_side_are_cut_and_otherwise_refused_with_the_option(tmp_path: Path) -> None:
    scene, path = replace(SCENE, n_phases=3), tmp_path / "tiles.tif"
    tiles = slices(scene).transpose(0, 1, 3, 2, 4).reshape(2, 3 * SIZE, 3 * SIZE)  # rows of angles, columns of phases
    tifffile.imwrite(path, tiles, photometric="minisblack")
    asked = ("sim", "estimate", path, *OPTICS, "--pixel-um", "0.25", "--phases", "3")
    refused = spheroidd(*asked)
    assert refused.exit_code == 2
    assert "give --tiles 3x3" in " ".join(refused.output.split())
    done = spheroidd(*asked, "--tiles", "3x3", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["period_nm"] == pytest.approx([1000 / 1.75] * 3, rel=2e-3)
    assert spheroidd(*asked, "--tiles", "3x3", "--order", "z-phase-angle").exit_code == 1
    for wrong, word in (("3x5", "cannot be cut into 3 x 5"), ("three", "write rows x columns")):
        assert word in " ".join(spheroidd(*asked, "--tiles", wrong).output.split())


def test_a_folder_with_a_file_for_each_frame_is_told_from_a_run(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"raw_{number}.tif", np.zeros((8, 8), np.uint16))
    done = spheroidd("sim", "estimate", tmp_path, *OPTICS)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "a folder with 3 image files" in said
    assert "save them in their order as one stack" in said


@pytest.mark.parametrize("kind", [".ome.tif", ".ome.zarr"])
def test_a_computed_image_says_that_it_is_computed_and_how(raw: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"out{kind}"
    done = spheroidd("sim", "reconstruct", raw, *OPTICS, "--order", "angle-z-phase", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert [one["method"] for one in json.loads(done.stdout)["slices"]] == ["sim", "sim"]
    if kind == ".ome.tif":
        with tifffile.TiffFile(out) as tiff:
            pixels, text = tiff.asarray(), str(tiff.ome_metadata)
        assert 'PhysicalSizeX="0.125"' in text
        assert "structured-illumination reconstruction" in text
    else:
        group = zarr.open_group(out, mode="r")
        pixels = np.asarray(group["0"])
        level = group.attrs["ome"]["multiscales"][0]["datasets"][0]
        assert level["coordinateTransformations"][0]["scale"] == [0.5, 0.125, 0.125]
        assert "reconstruction" in group.attrs["spheroidd"]["computed"]
        assert len(group.attrs["spheroidd"]["slices"]) == 2
    assert (pixels.dtype, pixels.shape) == (np.uint16, (2, 2 * SIZE, 2 * SIZE))
    assert pixels.mean() == pytest.approx(slices(SCENE).mean(), rel=5e-3)
    again = spheroidd("sim", "reconstruct", raw, *OPTICS, "--order", "angle-z-phase", "--out", out)
    assert again.exit_code == 2
    assert "nothing is overwritten" in again.output


def test_torch_writes_the_same_image(raw: Path, tmp_path: Path) -> None:
    for name, device in (("a.tif", []), ("b.tif", ["--device", "cpu"])):
        done = spheroidd(
            "sim", "reconstruct", raw, *OPTICS, "--order", "angle-z-phase", "--out", tmp_path / name, *device
        )
        assert done.exit_code == 0, done.output
    ours, torchs = (tifffile.imread(tmp_path / name).astype(int) for name in ("a.tif", "b.tif"))
    assert np.abs(ours - torchs).max() <= 1


def test_without_a_pattern_there_is_no_image_but_on_request_widefield(tmp_path: Path) -> None:
    path = tmp_path / "dead.tif"
    tifffile.imwrite(path, slices(SCENE.dead()).reshape(-1, SIZE, SIZE), photometric="minisblack")
    arguments = ("sim", "reconstruct", path, *OPTICS, "--pixel-um", "0.25", "--out", tmp_path / "out.tif")
    refused = spheroidd(*arguments)
    assert refused.exit_code == 1
    assert "no stripes found" in refused.output
    assert not (tmp_path / "out.tif").exists()
    allowed = spheroidd(*arguments, "--widefield", "--json")
    assert allowed.exit_code == 0
    assert [one["method"] for one in json.loads(allowed.stdout)["slices"]] == ["widefield"] * 2
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert "no pattern" in str(tiff.ome_metadata)


def test_frames_of_small_numbers_are_not_rounded_to_nothing(tmp_path: Path) -> None:
    path, out = tmp_path / "small.tif", tmp_path / "out.ome.tif"
    frames = slices(SCENE, (0,)).reshape(-1, SIZE, SIZE).astype(np.float32) / 65535
    tifffile.imwrite(path, frames, imagej=True, resolution=(4, 4), metadata={"axes": "ZYX", "unit": "um"})
    optics = [*OPTICS[:-1], str(100 / 65535)]
    done = spheroidd("sim", "reconstruct", path, *optics, "--out", out)
    assert done.exit_code != 0
    said = " ".join(done.output.split())
    scale = said.split("give --scale ")[1].split(",")[0]
    assert "counts apart at scale 1" in said
    assert not out.exists()
    assert spheroidd("sim", "reconstruct", path, *optics, "--out", out, "--scale", scale).exit_code == 0
    assert np.ptp(tifffile.imread(out).astype(int)) > 1000


def test_values_that_do_not_fit_are_refused_with_the_scale_that_does_and_nothing_is_left(
    raw: Path, tmp_path: Path
) -> None:
    asked = ("sim", "reconstruct", raw, *OPTICS, "--order", "angle-z-phase", "--out")
    for name in ("out.tif", "out.ome.zarr"):
        done = spheroidd(*asked, tmp_path / name, "--scale", "500")
        assert done.exit_code == 1
        assert "or less, or --float" in done.output
        scale = " ".join(done.output.split()).split("give --scale ")[1].split(" ")[0]
    assert not list(tmp_path.iterdir())
    assert spheroidd(*asked, tmp_path / "out.tif", "--scale", scale).exit_code == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--phases", "4"], "no whole number of slices"),
        (["--phases", "2"], "n_phases"),
        (["--order", "z-angle"], "--order"),
        (["--order", "z-angle-angle"], "order is"),
        (["--beams", "four"], "--beams"),
        (["--angles-deg", "1,2"], "angles_deg"),
        (["--angles-deg", "a"], "--angles-deg"),
        (["--search", "0.9"], "--search"),
        (["--channel", "3"], "no channel 3"),
        (["--pixel-um", "3"], "sample less than half"),
    ],
)
def test_what_cannot_be_is_refused(raw: Path, options: list[str], word: str) -> None:
    done = spheroidd("sim", "estimate", raw, *OPTICS, *options)
    assert done.exit_code in (1, 2)
    assert word in " ".join(done.output.split())


def test_two_colours_of_a_file_are_not_taken_for_slices(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    frames = slices(SCENE, (0,)).reshape(-1, 1, SIZE, SIZE)
    both = np.concatenate([frames, np.full_like(frames, 100)], axis=1)
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, both, metadata={"axes": "ZCYX", **sizes}, photometric="minisblack")
    done = spheroidd("sim", "estimate", path, *OPTICS)
    assert "holds 2 channels" in " ".join(done.output.split())
    assert "give --channel, 0 to 1" in " ".join(done.output.split())
    assert spheroidd("sim", "estimate", path, *OPTICS, "--channel", "0").exit_code == 0


def test_optics_must_be_stated(raw: Path) -> None:
    assert "--na" in spheroidd("sim", "estimate", raw).output


@needs_real_data
def test_real_microtubules_have_the_pattern_that_their_authors_state() -> None:
    path = REAL_DATA / "sim_raw" / "rdlsim_microtubules_3x3.mrc"
    done = spheroidd("sim", "estimate", path, "--phases", "3", "--na", "1.3", "--json")
    assert done.exit_code == 0, done.output
    found = PatternEstimate.from_json(json.dumps(json.loads(done.stdout)["estimate"]))
    for angle, direction in zip(found.angles, (84.97, -35.04, 25.00), strict=True):
        assert abs((angle.angle_deg - direction + 90) % 180 - 90) < 0.1
        assert 1000 * angle.period_um == pytest.approx(180.2, rel=4e-3)


@needs_real_data
def test_real_three_beam_frames_have_the_pattern_of_their_settings_in_their_true_order_only() -> None:
    path = REAL_DATA / "sim_raw" / "cudasirecon_3x5_raw.tif"
    options = ["--beams", "three", "--na", "1.42", "--emission-nm", "528", "--json", "--slices", "9"]
    done = spheroidd("sim", "estimate", path, *options, "--order", "angle-z-phase")
    assert done.exit_code == 0, done.output
    found = PatternEstimate.from_json(json.dumps(json.loads(done.stdout)["estimate"]))
    for angle, direction in zip(found.angles, (46.08, 106.31, -13.68), strict=True):
        assert abs((angle.angle_deg - direction + 90) % 180 - 90) < 0.1
        assert 500 * angle.period_um == pytest.approx(204.4, rel=2e-3)
    assert spheroidd("sim", "estimate", path, *options, "--order", "phase-angle-z").exit_code == 1
    assert spheroidd("sim", "estimate", path, *options).exit_code == 1


def test_one_slice_needs_no_order_of_z(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, slices(replace(SCENE, n_phases=3), (0,)).reshape(-1, SIZE, SIZE), photometric="minisblack")
    done = spheroidd(
        "sim", "estimate", path, *OPTICS, "--pixel-um", "0.25", "--phases", "3", "--order", "phase-angle-z"
    )
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "read in the order z-angle-phase the pattern could be trusted" in said
