"""Drawn and labelled truths: TrakEM2 projects, label TIFFs, OME-Zarr labels; and files that are none of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.measure import points_in_poly

from spheroidd.inference.annotations.read import read_annotation
from spheroidd.inference.annotations.trakem2 import fill, read_path
from spheroidd.inference.annotations.volume import Annotation, ClassNames
from spheroidd.protocols.errors import ConfigError

SQUARE = "M 2 1 L 6 1 L 6 5 L 2 5 z"
HOLE = "M 3 2 L 5 2 L 5 4 L 3 4 z"


def area_list(
    oid: int, title: str, areas: dict[int, list[str]], matrix: str = "matrix(1.0,0.0,0.0,1.0,0.0,0.0)"
) -> str:
    drawn = "".join(
        f'<t2_area layer_id="{layer}">' + "".join(f'<t2_path d="{path}" />' for path in paths) + "</t2_area>"
        for layer, paths in areas.items()
    )
    return f'<t2_area_list oid="{oid}" transform="{matrix}" title="{title}" fill_paint="true">{drawn}</t2_area_list>'


def project(
    *lists: str,
    z: tuple[float, ...] = (0, 2.5, 5),
    calibration: str = 'pixelWidth="0.2" pixelHeight="0.2" pixelDepth="0.5" unit="micron"',
    tree: str = "",
    patch: str = "",
    size: str = 'layer_width="12.0" layer_height="9.0"',
) -> str:
    layers = "".join(
        f'<t2_layer oid="{20 + n}" thickness="2.5" z="{at}" title="">{patch}</t2_layer>' for n, at in enumerate(z)
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE trakem2_anything [\n<!ELEMENT trakem2 (project)>\n'
        "<!ATTLIST t2_area layer_id NMTOKEN #REQUIRED>\n]>\n"
        f'<trakem2><project id="0" title="Project"><anything id="1">{tree}</anything></project>'
        f'<t2_layer_set oid="3" {size}><t2_calibration {calibration} />{"".join(lists)}{layers}'
        "</t2_layer_set></trakem2>"
    )


def write(folder: Path, text: str, name: str = "A01.xml") -> Path:
    path = folder / name
    data = text.encode("latin-1")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["A01.xml", "A01.xml.gz"])
def test_a_project_becomes_labels_with_its_calibration(tmp_path: Path, name: str) -> None:
    text = project(
        area_list(5, "Live cell 1", {20: [SQUARE, HOLE], 21: [SQUARE]}),
        area_list(6, "dead nucleus", {21: ["M 0 0 L 2 0 L 2 2 L 0 2 z"]}, "matrix(1,0,0,1,8,7)"),
    )
    found = read_annotation(write(tmp_path, text, name))
    expected = np.zeros((3, 9, 12), np.uint8)
    expected[:2, 1:5, 2:6] = 1
    expected[0, 2:4, 3:5] = 0
    expected[1, 7:9, 8:10] = 2
    assert np.array_equal(found.labels, expected)
    assert found.spacing_um == pytest.approx((0.5, 0.2, 0.2))
    assert found.names == {1: "Live cell 1", 2: "dead nucleus"}
    assert found.overlap_voxels == 0
    masks = found.masks()
    assert np.array_equal(masks["live"], expected == 1)
    assert np.array_equal(masks["dead"], expected == 2)


def test_a_transform_turns_and_scales(tmp_path: Path) -> None:
    text = project(area_list(5, "live", {20: ["M 0 0 L 3 0 L 3 1 L 0 1 z"]}, "matrix(0.0, 2.0, -2.0, 0.0, 6.0, 1.0)"))
    expected = np.zeros((9, 12), bool)
    expected[1:7, 4:6] = True
    assert np.array_equal(read_annotation(write(tmp_path, text)).labels[0] == 1, expected)


def test_a_list_without_a_title_of_its_own_is_named_by_the_tree(tmp_path: Path) -> None:
    tree = '<dead id="7" title="dead"><area_list id="8" oid="5" /></dead>'
    text = project(area_list(5, "area_list", {20: [SQUARE]}), tree=tree)
    assert read_annotation(write(tmp_path, text)).classes() == {"live": (), "dead": (1,)}


def test_the_volume_is_the_image_on_the_canvas(tmp_path: Path) -> None:
    patch = '<t2_patch oid="9" width="5" height="4" transform="matrix(1.0,0.0,0.0,1.0,2.0,1.0)" />'
    text = project(area_list(5, "live", {20: [SQUARE]}), patch=patch)
    labels = read_annotation(write(tmp_path, text)).labels
    assert labels.shape == (3, 4, 5)
    assert labels[0].tolist() == [[1, 1, 1, 1, 0]] * 4


def test_what_two_objects_claim_is_counted_and_the_later_has_it(tmp_path: Path) -> None:
    text = project(area_list(5, "live", {20: [SQUARE]}), area_list(6, "dead", {20: [HOLE]}))
    found = read_annotation(write(tmp_path, text))
    assert found.overlap_voxels == 4
    assert found.labels[0, 2, 3] == 2


def test_an_uncalibrated_project_has_no_voxel_size(tmp_path: Path) -> None:
    pixels = 'pixelWidth="1.0" pixelHeight="1.0" pixelDepth="1.0" unit="pixel"'
    assert read_annotation(write(tmp_path, project(calibration=pixels))).spacing_um is None


BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><trakem2>&c;</trakem2>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not well-formed"),
        ("<a/>", "not a TrakEM2 project"),
        (BOMB, "not well-formed"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hosts">]><trakem2>&b;</trakem2>', "not well-formed"),
        (project(z=()), "no layer"),
        (project(z=(0, 2.5, 6)), "pixels apart"),
        (project(z=(0, 0)), "pixels apart"),
        (project(z=(0, 1, 2)), "calibration says"),
        (project(size='layer_width="1e8" layer_height="1e8"'), "canvas"),
        (project(size='layer_height="4"'), "layer_width"),
        (project(size='layer_width="nan" layer_height="4"'), "layer_width"),
        (project(area_list(5, "live", {99: [SQUARE]})), "layer '99'"),
        (project(area_list(5, "live", {20: ["M 1 2 C 3 4 5 6 7 8 z"]})), "'C'"),
        (project(area_list(5, "live", {20: ["M 1 2 L 3 L 4 5 z"]})), "without a y"),
        (project(area_list(5, "live", {20: ["M 1 1e300 L 3 2 L 4 5 z"]})), "1e300"),
        (project(area_list(5, "live", {20: [SQUARE]}, "rotate(5)")), "transform"),
        (project(calibration='pixelWidth="-1" pixelHeight="1" pixelDepth="-2.5" unit="um"'), "voxel size"),
    ],
)
def test_a_wild_project_is_refused_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)
    assert caught.value.do


@given(st.text(alphabet="MLzZ 0123456789.-+eE,nC", max_size=40))
@settings(deadline=None)
def test_a_path_is_outlines_or_a_clear_error(text: str) -> None:
    try:
        outlines = read_path(text, "here")
    except ConfigError:
        pass
    else:
        assert all(outline.shape[1] == 2 and len(outline) >= 3 for outline in outlines)


coordinates = st.floats(-3, 13, allow_nan=False).map(lambda v: round(v, 2) + 0.003)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
@settings(deadline=None)
def test_filling_is_even_odd_at_pixel_centres(points: list[tuple[float, float]]) -> None:
    outline = np.array(points)
    mask, (top, left) = fill([outline], 10, 10)
    plane = np.zeros((10, 10), bool)
    plane[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    y, x = np.mgrid[:10, :10] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], 1)
    clear = edge_distance(centres, outline) > 1e-9  # on an edge, the two may choose either side
    assert np.array_equal(plane.ravel()[clear], points_in_poly(centres, outline)[clear])


def edge_distance(points: np.ndarray[Any, Any], outline: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    start, edge = outline, np.roll(outline, -1, 0) - outline
    length2 = np.maximum((edge**2).sum(1), 1e-300)
    along = (((points[:, None] - start) * edge).sum(2) / length2).clip(0, 1)
    return np.linalg.norm(points[:, None] - start - along[..., None] * edge, axis=2).min(1)


VOLUME = np.zeros((3, 4, 5), np.uint16)
VOLUME[1, 1:3, 1:4] = 1
VOLUME[2, 2, 2] = 2


def test_an_imagej_tiff_tells_its_voxel_size(tmp_path: Path) -> None:
    told: dict[str, Any] = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "w.tif", VOLUME, imagej=True, resolution=(4.0, 5.0), metadata=told)
    found = read_annotation(tmp_path / "w.tif")
    assert found.spacing_um == pytest.approx((0.5, 0.2, 0.25))
    assert np.array_equal(found.labels, VOLUME)
    masks = found.masks(ClassNames.given(live=["1"], dead=["2"]))
    assert np.array_equal(masks["live"], VOLUME == 1)
    assert np.array_equal(masks["dead"], VOLUME == 2)
    with pytest.raises(ConfigError, match="no name in it means"):
        found.masks()


def test_an_ome_tiff_tells_its_voxel_size_and_its_name_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "A01_live.ome.tif"
    sizes = {"PhysicalSizeZ": 500, "PhysicalSizeZUnit": "nm", "PhysicalSizeY": 0.2, "PhysicalSizeX": 0.25}
    tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "ZYX", **sizes})
    found = read_annotation(path)
    assert found.spacing_um == pytest.approx((0.5, 0.2, 0.25))
    assert np.array_equal(found.masks()["live"], VOLUME > 0)


def _labels(
    folder: Path, name: str, volume: np.ndarray[Any, Any], properties: list[dict[str, Any]], group: str
) -> Path:
    root = zarr.open_group(folder / "A01.ome.zarr", mode="a", zarr_format=3)
    node = root.require_group(f"{group}/{name}" if group else name)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [0.5, 0.2, 0.2]}]
    scales = [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}]
    node.attrs["ome"] = {"version": "0.5", "multiscales": scales, "image-label": {"properties": properties}}
    node.create_array("s0", data=volume)
    return folder / "A01.ome.zarr"


def test_ome_zarr_labels_are_named_by_their_properties(tmp_path: Path) -> None:
    properties = [{"label-value": 1, "class": "live"}, {"label-value": 2, "class": "dead"}]
    found = read_annotation(_labels(tmp_path, "cells", VOLUME, properties, "labels"))
    assert found.spacing_um == pytest.approx((0.5, 0.2, 0.2))
    assert found.classes() == {"live": (1,), "dead": (2,)}
    assert np.array_equal(found.labels, VOLUME)


def test_live_and_dead_labels_of_one_image_are_merged(tmp_path: Path) -> None:
    _labels(tmp_path, "live", (VOLUME == 1).astype(np.uint8), [], "labels")
    path = _labels(tmp_path, "dead", (VOLUME == 2).astype(np.uint8), [], "labels")
    masks = read_annotation(path).masks()
    assert np.array_equal(masks["live"], VOLUME == 1)
    assert np.array_equal(masks["dead"], VOLUME == 2)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (VOLUME.astype(float) + 0.5, "no whole"),
        (VOLUME.astype(np.int16) - 1, "from -1"),
        (np.full((2, 2, 2), np.nan), "nan"),
        (np.zeros((2, 2, 3, 3), np.uint8), r"\(2, 2, 3, 3\)"),
        (np.zeros((0, 2, 2), np.uint8), r"\(0, 2, 2\)"),
        (np.array([[["a"]]]), "<U1"),
    ],
    ids=["fractions", "negative", "nan", "4-D", "empty", "text"],
)
def test_volumes_that_are_no_labels_are_refused(tmp_path: Path, volume: np.ndarray[Any, Any], message: str) -> None:
    np.save(tmp_path / "t.npy", volume)
    with pytest.raises(ConfigError, match=message):
        read_annotation(tmp_path / "t.npy")


@example(name="a.npy", data=b"PK\x03\x04")  # the head of an archive
@given(name=st.sampled_from(["a.xml", "a.xml.gz", "a.tif", "a.npy", "a.txt"]), data=st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_refused_with_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("wild") / name
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_annotation(path)
    assert caught.value.do


@pytest.mark.parametrize("content", ["{}", "not json", json.dumps({"zarr_format": 3, "node_type": "group"})])
def test_a_folder_that_is_no_label_is_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "x.zarr"
    folder.mkdir()
    (folder / "zarr.json").write_text(content)
    with pytest.raises(ConfigError):
        read_annotation(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Live", "live"),
        ("live_12", "live"),
        ("Calcein", "live"),
        ("PI nuclei", "dead"),
        ("olive", None),
        ("pixel", None),
    ],
)
def test_words_decide_what_a_name_means(name: str, kind: str | None) -> None:
    assert ClassNames().of(name) == kind


def test_a_name_that_means_both_has_to_be_given() -> None:
    both = Annotation(VOLUME, None, {1: "live/dead"}, "here")
    with pytest.raises(ConfigError, match="means live and dead"):
        both.masks()
    assert list(both.masks(ClassNames.given(dead=["live/dead"]))) == ["dead"]
    with pytest.raises(ConfigError, match="as live and as dead"):
        ClassNames.given(live=["a"], dead=["A "])
