"""Model cards, verification, and bioimage.io packages out and in."""

import contextlib
import hashlib
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from spheroidd.daemon.cli import console as cli
from spheroidd.inference.network.bioimageio import PackagedUNet, export_package, import_package
from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.card_text import card_text
from spheroidd.inference.network.known_answer import TOLERANCE, answer, compare, probe
from spheroidd.inference.network.model_card import WEIGHTS_FOLDER, ModelCard, UNetSettings, read_card
from spheroidd.inference.network.weights import load_model, renew_card, save_model
from spheroidd.protocols.errors import ModelError, StorageError

SETTINGS = UNetSettings(base=2, levels=3, spacing_um=(1.0, 0.5, 0.5))


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    metrics = {"demo plate": {"wells": 3, "live_dice_mean": 0.9312}, "seconds": 12.5}
    tradeoff = ({"spacing_um": [1.0, 1.0, 1.0], "base": 8, "live_dice": 0.95, "cpu_s": 11.0},)
    card = ModelCard("tiny", SETTINGS, 4, "", command="spheroidd train x.toml", seeds={"training": 5}, metrics=metrics)
    save_model(build_network(SETTINGS), tmp_path, replace(card, data_sha256="ab" * 32, tradeoff=tradeoff))
    return tmp_path / "tiny.safetensors"


def test_the_card_to_read_has_every_number(model: Path) -> None:
    text = model.with_suffix(".md").read_text(encoding="utf-8")
    for words in (
        "| 3 | 0.9312 |",
        "12.5",
        "`spheroidd train x.toml`",
        "| seed: training | 5 |",
        "ab" * 32,
        "1 x 0.5 x 0.5 um",
    ):
        assert words in text
    assert "| 1 x 1 x 1 | 8 | 0.95 | 11 |" in text
    assert read_card(model).sha256 in text


@pytest.mark.parametrize("path", sorted(WEIGHTS_FOLDER.glob("emulator*.json")), ids=lambda path: path.stem)
def test_every_shipped_card_loads_and_reads(path: Path) -> None:
    card = read_card(path)
    assert card_text(card).startswith(f"# {card.name}\n")


@pytest.mark.parametrize(
    "changes", [{}, {"architecture": "SlicewiseUNet"}, {"density": False}, {"residual": False}], ids=str
)
def test_a_network_answers_as_its_card_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    settings = replace(SETTINGS, **changes)
    save_model(build_network(settings), tmp_path, ModelCard("one", settings, 4, ""))
    network, card = load_model(tmp_path / "one.safetensors")
    assert compare(network, card.probe).same_bits
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1)
    found = compare(network, card.probe)
    assert not found.passes
    assert found.difference is not None
    assert found.difference > TOLERANCE


def test_a_probe_leaves_the_network_as_it_was() -> None:
    network = build_network(SETTINGS).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    probe(network)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_verify_says_what_holds(model: Path) -> None:
    done = spheroidd("model", "verify", model)
    assert done.exit_code == 0, done.output
    assert "the same bits" in done.output
    assert spheroidd("model", "verify", "regressor").exit_code == 0


def _other_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _other_answer(path: Path) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["probe"]["means"]["live"][0] += 0.1
    card["probe"]["sha256"] = "0" * 64
    path.with_suffix(".json").write_text(json.dumps(card))


def _other_shape(path: Path) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["settings"]["base"] = 3
    path.with_suffix(".json").write_text(json.dumps(card))


def _odd_probe(path: Path) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["probe"] = {"means": {"live": "many"}}
    path.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_other_bytes, "altered"),
        (_other_answer, "known input: within 1.0e-01"),
        (_other_shape, "files"),
        (_odd_probe, "keeps no answer"),
        (Path.unlink, "no such weights"),
    ],
)
def test_verify_finds_what_is_wrong(model: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(model)
    done = spheroidd("model", "verify", model)
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())


def test_an_old_card_gets_its_answer(model: Path) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    for name in ("probe", "data_sha256", "tradeoff"):
        del card[name]
    model.with_suffix(".json").write_text(json.dumps(card))
    assert "adds one" in spheroidd("model", "verify", model).output
    assert renew_card(model) == model.with_suffix(".md")
    assert "the same bits" in spheroidd("model", "verify", model).output


def test_a_card_gets_its_rivals(model: Path, tmp_path: Path) -> None:
    point = {"spacing_um": 0.5, "base": 4, "live": {"dice": 0.91}, "dead": {"dice": 0.85}, "cpu_s_per_screen_stack": 9}
    (tmp_path / "front.json").write_text(json.dumps({"steps": 150, "points": [point]}))
    assert spheroidd("model", "card", model, "--write", "--rivals", tmp_path / "front.json").exit_code == 0
    own, rival = read_card(model).tradeoff
    assert (own["network"], own["live_dice"], own["spacing_um"]) == ("tiny", 0.9312, [1.0, 0.5, 0.5])
    assert own["cpu_s"] > 0
    assert rival["cpu_s"] == 9
    assert (
        "| bench.pareto, 150 steps | 0.5 x 0.5 x 0.5 | 4 | 3 | 0.91 | 0.85 | 9 |"
        in model.with_suffix(".md").read_text()
    )
    (tmp_path / "front.json").write_text('{"steps": 150}')
    for arguments in (("--write",), ()):
        done = spheroidd("model", "card", model, *arguments, "--rivals", tmp_path / "front.json")
        assert done.exit_code == 2, done.output


def test_list_and_info(model: Path) -> None:
    listed = json.loads(spheroidd("model", "list", "--in", model.parent, "--json").stdout)
    assert listed[0]["default"]
    tiny = next(row for row in listed if row["name"] == "tiny")
    assert tiny["live_dice"] == 0.9312
    assert "regressor" not in {row["name"] for row in listed}
    assert "tiny" in spheroidd("model", "list", "--in", model.parent).stdout
    assert json.loads(spheroidd("model", "info", model, "--json").stdout)["name"] == "tiny"
    assert "spheroidd train x.toml" in spheroidd("model", "info", model).stdout
    model.with_suffix(".json").write_text("{")
    assert "not a model card" in " ".join(spheroidd("model", "list", "--in", model.parent).stdout.split())


def test_a_package_goes_out_and_comes_in(model: Path, tmp_path: Path) -> None:
    package, back = tmp_path / "tiny.zip", tmp_path / "back"
    done = spheroidd("model", "export", model, "--bioimageio", package)
    assert done.exit_code == 0, done.output
    done = spheroidd("model", "import", package, "--out", back)
    assert done.exit_code == 0, done.output
    assert (back / "tiny.safetensors").read_bytes() == model.read_bytes()
    assert read_card(back / "tiny.safetensors") == read_card(model)
    with pytest.raises(StorageError, match="already"):
        export_package(model, package)
    with pytest.raises(StorageError, match="already"):
        import_package(package, back)


# The specification's library leaves the zip that it read to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.skipif(os.name == "nt", reason="the specification's library keeps a cache that Windows locks")
def test_the_package_is_valid_by_the_specifications_own_library(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("bioimageio.spec", reason='needs pip install "spheroidd[test]"')
    from bioimageio.spec import InvalidDescr, load_description

    export_package(model, tmp_path / "tiny.zip")
    found = load_description(tmp_path / "tiny.zip", format_version="latest", perform_io_checks=True)
    assert not isinstance(found, InvalidDescr), found.validation_summary.display()
    assert found.validation_summary.status in ("valid-format", "passed")


def test_the_packages_network_gives_the_packages_tensors(model: Path, tmp_path: Path) -> None:
    export_package(model, tmp_path / "tiny.zip")
    with zipfile.ZipFile(tmp_path / "tiny.zip") as archive:
        rdf = json.loads(archive.read("rdf.yaml"))
        arrays = {}
        for name in ("input.npy", "cells.npy", "density.npy"):
            with archive.open(name) as file:
                arrays[name] = np.load(file)
        assert hashlib.sha256(archive.read("cells.npy")).hexdigest() == rdf["outputs"][0]["test_tensor"]["sha256"]
    import safetensors.torch

    network = PackagedUNet(**rdf["weights"]["pytorch_state_dict"]["architecture"]["kwargs"])
    network.load_state_dict(safetensors.torch.load_file(model), strict=True)
    with torch.inference_mode():
        cells, density = network.eval()(torch.from_numpy(arrays["input.npy"]))
    np.testing.assert_allclose(cells.numpy(), arrays["cells.npy"], atol=1e-5)
    np.testing.assert_allclose(density.numpy(), arrays["density.npy"], atol=1e-5)
    assert np.array_equal(answer(load_model(model)[0])[np.newaxis, :2], arrays["cells.npy"])


def _rewritten(package: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    out = package.with_name("changed.zip")
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out


def _card(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        rdf = json.loads(files["rdf.yaml"])
        change(rdf)
        files["rdf.yaml"] = json.dumps(rdf).encode()

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("rdf.yaml"), "no rdf.yaml"),
        (lambda files: files.pop("tiny.safetensors"), "missing"),
        (lambda files: files.update({"tiny.safetensors": b"x"}), "not those of its card"),
        (lambda files: files.update({"rdf.yaml": b"a: 1"}), "no spheroidd model"),
        (_card(lambda rdf: rdf.pop("config")), "no spheroidd model"),
        (_card(lambda rdf: rdf["config"]["spheroidd"].update(name="../up")), "not a model card"),
        (_card(lambda rdf: rdf["config"]["spheroidd"].update(name="a/b")), "not a model card"),
        (_card(lambda rdf: rdf["config"]["spheroidd"]["settings"].update(base=3)), "network requires|has"),
        (_card(lambda rdf: rdf["config"]["spheroidd"].update(settings=3)), "not a model card"),
        (_card(lambda rdf: rdf.update(weights=[])), "no spheroidd model"),
    ],
)
def test_a_spoilt_package_leaves_nothing_behind(
    model: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], words: str
) -> None:
    export_package(model, tmp_path / "tiny.zip")
    with pytest.raises(ModelError, match=words):
        import_package(_rewritten(tmp_path / "tiny.zip", change), tmp_path / "back")
    assert not list(tmp_path.glob("back/*"))


_MUCH = bytes(96 << 20)  # half a megabyte in a zip


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("big.bin", _card(lambda rdf: None), ""),
        ("tiny.safetensors", _card(lambda rdf: None), "unpacks to 100663296 bytes"),
        ("rdf.yaml", _card(lambda rdf: None), "unpacks to 100663296 bytes"),
        (
            "tiny.safetensors",
            _card(lambda rdf: rdf["config"]["spheroidd"]["settings"].update(base=300, max_features=10**4)),
            "unpacks to 100663296 bytes",
        ),
        (
            "big.bin",
            _card(lambda rdf: rdf["config"]["spheroidd"]["settings"].update(max_features=10**15, base=10**15)),
            "cannot be built",
        ),
    ],
)
def test_a_package_takes_no_more_memory_than_its_network_needs(
    model: Path, tmp_path: Path, name: str, change: Callable[[dict[str, bytes]], None], words: str
) -> None:
    export_package(model, tmp_path / "tiny.zip")
    with zipfile.ZipFile(_rewritten(tmp_path / "tiny.zip", change)) as archive:
        files = {one: archive.read(one) for one in archive.namelist()} | {name: _MUCH}
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for one, data in files.items():
            archive.writestr(one, data)
    del files
    refused = pytest.raises(ModelError, match=words) if words else contextlib.nullcontext()
    tracemalloc.start()
    try:
        with refused:
            import_package(tmp_path / "bomb.zip", tmp_path / "back")
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no zip at all"])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ModelError, match="zip"):
        import_package(tmp_path / "x.zip", tmp_path)
