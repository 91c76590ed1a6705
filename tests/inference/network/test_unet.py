import dataclasses
import json
from pathlib import Path

import pytest
import torch

from spheroidd.inference.network.bioimageio import export_package, import_package
from spheroidd.inference.network.build import ARCHITECTURES, build_network
from spheroidd.inference.network.model_card import WEIGHTS_FOLDER, ModelCard, UNetSettings, read_card
from spheroidd.inference.network.unet import ResidualUNet, UNet, fold_batchnorm
from spheroidd.inference.network.unet2d import SlicewiseUNet
from spheroidd.inference.network.weights import load_model, save_model
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.trainer import TrainSettings, check_possible
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.ports import Segmenter
from spheroidd.testing.segmenter_contract import SegmenterContract, noise

SETTINGS = [UNetSettings(base=3, levels=2, density_level=0), UNetSettings(base=4, levels=3), UNetSettings(3, 4)]


def trained_looking(settings: UNetSettings) -> ResidualUNet:
    """Random weights whose BatchNorm statistics and merge weights are not the initial ones."""
    torch.manual_seed(7)
    model = ResidualUNet(settings)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        model.merge.normal_()
    return model.eval()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_output_has_its_own_resolution(settings: UNetSettings) -> None:
    out = ResidualUNet(settings)(torch.randn(2, 2, 16, 8, 24))
    assert out.merged.shape == (2, 2, 16, 8, 24)
    assert [tuple(stage.shape[2:]) for stage in out.stages] == [
        (16 >> n, 8 >> n, 24 >> n) for n in range(settings.levels - 1)
    ]
    n = settings.density_level
    assert out.density.shape == (2, 2, 16 >> n, 8 >> n, 24 >> n)
    assert out.density.min() >= 0


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_folding_the_batchnorm_changes_nothing_but_rounding(settings: UNetSettings) -> None:
    model = trained_looking(settings)
    folded = fold_batchnorm(model)
    x = torch.randn(1, 2, 16, 16, 16)
    for a, b in zip(model.infer(x), folded.infer(x), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm3d) for module in model.modules()), "the original was changed"


@torch.no_grad()
def test_the_merged_map_is_the_normalised_weighted_average_of_all_stages() -> None:
    model = trained_looking(UNetSettings(base=3, levels=4))
    out = model(torch.randn(1, 2, 16, 16, 16))
    weights = torch.softmax(model.merge, 0)
    expected = torch.zeros_like(out.merged)
    for weight, stage in zip(weights, out.stages, strict=True):
        while stage.shape != out.merged.shape:
            stage = torch.nn.functional.interpolate(stage, scale_factor=2, mode="trilinear", align_corners=False)
        expected += weight * stage
    assert weights.sum() == pytest.approx(1)
    assert torch.allclose(out.merged, expected, atol=1e-5)


SWITCHES = [
    {"residual": False},
    {"deep_supervision": False},
    {"density": False},
    {"residual": False, "deep_supervision": False, "density": False},
    {"architecture": "SlicewiseUNet"},
]


def switched(switch: dict[str, bool]) -> UNet:
    torch.manual_seed(7)
    return build_network(UNetSettings(base=4, levels=3, **switch)).eval()


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
@torch.no_grad()
def test_what_is_switched_off_is_not_there(switch: dict[str, bool]) -> None:
    model, full = switched(switch), switched({})
    out = model(torch.randn(2, 2, 8, 16, 16))
    assert out.merged.shape == (2, 2, 8, 16, 16)
    plain = "architecture" in switch
    assert bool(out.stages) == (switch.get("deep_supervision", True) and not plain)
    assert (out.density is not None) == (switch.get("density", True) and not plain)
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in full.parameters())
    folded = fold_batchnorm(model)
    x = torch.randn(1, 2, 8, 16, 16)
    for a, b in zip(model.infer(x), folded.infer(x), strict=True):
        assert a.shape == (1, 2, 8, 16, 16)
        assert torch.allclose(a, b, atol=1e-5)
    if out.density is None:
        assert not model.infer(x)[1].any(), "it counts no cells"


@torch.no_grad()
def test_without_its_skip_a_block_is_its_two_convolutions() -> None:
    torch.manual_seed(0)
    plain = switched({"residual": False}).encoder[1]  # type: ignore[index]
    x = torch.randn(1, 4, 4, 8, 8)
    expected = torch.relu(plain.norm2(plain.conv2(torch.relu(plain.norm1(plain.conv1(x))))))
    assert torch.allclose(plain(x), expected, atol=1e-6)


@torch.no_grad()
def test_the_2d_network_lets_nothing_pass_between_slices() -> None:
    model = switched({"architecture": "SlicewiseUNet"})
    x = torch.randn(1, 2, 8, 16, 16)
    moved = x.clone()
    moved[:, :, 3] += 5
    change = (model(moved).merged - model(x).merged).abs().amax(dim=(0, 1, 3, 4))
    assert change[3] > 1e-3
    assert float(change[[0, 1, 2, 4, 5, 6, 7]].max()) < 1e-5
    order = torch.randperm(8)
    assert torch.allclose(model(x[:, :, order]).merged, model(x).merged[:, :, order], atol=1e-5)


class TestSlicewiseSegmenter(SegmenterContract):
    def make_segmenter(self) -> Segmenter:
        model = switched({"architecture": "SlicewiseUNet"})
        return UNetSegmenter(model, ModelCard("slices", model.settings, 16, "0" * 64), "cpu", "fp32")


class TestNetworkWithoutBranches(SegmenterContract):
    def make_segmenter(self) -> Segmenter:
        model = switched({"residual": False, "deep_supervision": False, "density": False})
        return UNetSegmenter(model, ModelCard("plain", model.settings, 16, "0" * 64), "cpu", "fp32")


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_a_card_tells_which_network_it_is_of(tmp_path: Path, switch: dict[str, bool]) -> None:
    model = switched(switch)
    save_model(model, tmp_path, ModelCard("one", model.settings, halo=16, sha256=""))
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["architecture"] == ("SlicewiseUNet" if "architecture" in switch else "ResidualUNet")
    back, card = load_model(tmp_path / "one.safetensors")
    assert card.settings == model.settings
    x = torch.from_numpy(noise((8, 16, 16)))[None]
    with torch.no_grad():
        assert torch.equal(back(x).merged, model(x).merged)
    content["architecture"] = "AnotherUNet"
    (tmp_path / "one.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="another network"):
        load_model(tmp_path / "one.safetensors")


@pytest.mark.parametrize(("dimensions", "architecture"), [(2, "SlicewiseUNet"), (3, "ResidualUNet")])
def test_a_card_from_before_the_architectures_name_is_read_by_its_dimensions(
    tmp_path: Path, dimensions: int, architecture: str
) -> None:
    model = switched({"architecture": architecture})
    save_model(model, tmp_path, ModelCard("older", model.settings, halo=16, sha256=""))
    content = json.loads((tmp_path / "older.json").read_text())
    del content["settings"]["architecture"]
    content["settings"]["dimensions"] = dimensions
    (tmp_path / "older.json").write_text(json.dumps(content))
    back, card = load_model(tmp_path / "older.safetensors")
    assert type(back) is type(model)
    assert card.settings == model.settings
    assert "dimensions" not in card.as_json()["settings"]


class ThirdNetwork(SlicewiseUNet):
    """Another architecture, as somebody would add it."""


def test_a_third_architecture_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "ThirdNetwork", ThirdNetwork)
    model = switched({"architecture": "ThirdNetwork"})
    save_model(model, tmp_path, ModelCard("third", model.settings, halo=16, sha256=""))
    back, card = load_model(tmp_path / "third.safetensors")
    assert type(back) is ThirdNetwork
    assert card.as_json()["architecture"] == "ThirdNetwork"
    export_package(tmp_path / "third.safetensors", tmp_path / "third.zip")
    assert import_package(tmp_path / "third.zip", tmp_path / "elsewhere").settings == model.settings
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"no network architecture 'ThirdNetwork'.*ResidualUNet, SlicewiseUNet"):
        load_model(tmp_path / "third.safetensors")
    with pytest.raises(ModelError, match="no network architecture 'ThirdNetwork'"):
        import_package(tmp_path / "third.zip", tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_a_training_of_an_unknown_architecture_is_refused_before_it_begins(tmp_path: Path) -> None:
    settings = TrainSettings(network=UNetSettings(architecture="Transformer"))
    with pytest.raises(ModelError, match="use one of: ResidualUNet, SlicewiseUNet"):
        check_possible(settings, tmp_path, 1, "cpu")


def test_a_card_from_before_the_switches_is_of_the_full_network(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = json.loads(path.with_suffix(".json").read_text())
    for name in ("architecture", "residual", "deep_supervision", "density"):
        del content["settings"][name]
    path.with_suffix(".json").write_text(json.dumps(content))
    _, card = load_model(path)
    assert card.settings == UNetSettings(base=3, levels=2, density_level=0, spacing_um=(1.0, 0.5, 0.5))


@pytest.mark.parametrize("batch", [1, 2, 3])
@torch.inference_mode()
def test_inference_never_takes_the_slow_convolution_and_a_batch_changes_no_bit(batch: int) -> None:
    model = fold_batchnorm(trained_looking(UNetSettings(base=4, levels=3)))
    x = torch.randn(batch, 2, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        together = model.infer(x)[0]
    names = {event.key for event in profile.key_averages()}
    assert not any("slow_conv" in name for name in names), names
    assert torch.equal(together[:1], model.infer(x[:1])[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": 0},
        {"levels": 1},
        {"levels": 5},
        {"density_level": 2},
        {"spacing_um": (1.0, 0.0, 1.0)},
        {"dimensions": 4},
        {"dimensions": 3, "architecture": "SlicewiseUNet"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_built_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        dataclasses.replace(UNetSettings(), **wrong)


def saved(folder: Path) -> Path:
    settings = UNetSettings(base=3, levels=2, density_level=0, spacing_um=(1.0, 0.5, 0.5))
    card = ModelCard("tiny", settings, halo=8, sha256="", background=-0.5, seeds={"torch": 7}, metrics={"dice": 0.5})
    save_model(trained_looking(settings), folder, card)
    return folder / "tiny.safetensors"


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_weights_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path)
    model, card = load_model(path.with_suffix(suffix))
    assert not model.training
    assert card.settings == UNetSettings(base=3, levels=2, density_level=0, spacing_um=(1.0, 0.5, 0.5))
    assert (card.halo, card.background, card.seeds, card.metrics) == (8, -0.5, {"torch": 7}, {"dice": 0.5})
    original = trained_looking(card.settings).state_dict()
    assert all(torch.equal(value, original[key]) for key, value in model.state_dict().items())


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _another_width(path: Path) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["settings"]["base"] = 4
    path.with_suffix(".json").write_text(json.dumps(card))


def _another_depth(path: Path) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["settings"]["levels"] = 3
    path.with_suffix(".json").write_text(json.dumps(card))


def _no_card(path: Path) -> None:
    path.with_suffix(".json").unlink()


def _torn_card(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": 1, ')


def _foreign_card(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": 1, "architecture": "ResidualUNet", "hello": 1}')


def _no_weights(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _truncate,
        _another_width,
        _another_depth,
        _no_card,
        _torn_card,
        _foreign_card,
        _no_weights,
    ],
)
def test_weights_that_are_not_what_they_claim_are_refused(tmp_path: Path, damage) -> None:
    path = saved(tmp_path)
    damage(path)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.do


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match="one of: "):
        load_model("no-such-model")


SHIPPED = sorted(path for path in WEIGHTS_FOLDER.glob("*.json") if path.stem != "regressor")  # not a network


@pytest.mark.parametrize("card", SHIPPED, ids=lambda path: path.stem)
def test_every_model_that_ships_loads_and_its_card_carries_its_name(card: Path) -> None:
    _, loaded = load_model(card.stem)
    assert loaded == read_card(card.stem)
    assert loaded.name == card.stem
