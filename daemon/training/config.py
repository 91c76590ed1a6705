"""The file that `spheroidd train` reads: what to learn from, which network, how long; and presets that need no file."""

import tomllib
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, Field, ValidationError

from spheroidd.daemon.config.errors import explain
from spheroidd.daemon.config.table import Section
from spheroidd.inference.training.output_bias import Output
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.protocols.errors import ConfigError, ModelError
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.toml_text import parse_toml

Positive = Annotated[float, Field(gt=0)]
Kind = Literal["demo", "screen", "whole", "unit", "swapped", "dying", "any", "sim", "real", "hostile"]


class EmulatedPlates(Section):
    """Emulated plates of one kind, with the seeds first_seed, first_seed + 1, and so on."""

    kind: Kind
    first_seed: int = Field(ge=0)
    plates: int = Field(ge=1)


class Recording(Section):
    """A stack on disk with its truth: TIFF, .npy, .npz or .zarr, each (z, y, x); any channel may be absent.

    A truth is a mask or a label volume. Where a channel has an image and no truth, nothing is true of it: every voxel
    of it is background. With labels instead of a mask, each label's centre is a cell for the density as well.
    `patient` keeps recordings of one patient on one side of a split; without it each recording is one's own.
    """

    name: str
    patient: str | None = None
    path_488: Path | None = None
    path_561: Path | None = None
    live: Path | None = None
    dead: Path | None = None
    pixel_um: Positive
    z_step_um: Positive


class DataSection(Section):
    """What is learnt from, what is watched meanwhile, and what it is judged by at the end.

    No seed stands in two of them, of whatever kind the plates: a seed's patients and compounds are those of all kinds.
    No recording does either, nor a patient that is named.
    """

    cache: Path = Field(default=Path("training-cache"), description="a folder for rendered stacks")
    train: tuple[EmulatedPlates, ...] = ()
    validation: tuple[EmulatedPlates, ...] = ()
    held_out: tuple[EmulatedPlates, ...] = ()
    recordings: tuple[Recording, ...] = ()
    validation_recordings: tuple[Recording, ...] = ()


class ViabilitySection(Section):
    """After the segmentation is trained: network and regressor tuned together on plates with (emulated) MTT."""

    alpha: float = Field(0.1, ge=0)
    steps: int = Field(100, ge=1)
    learning_rate: Positive = 1e-5
    seed: int = 0
    plates: tuple[EmulatedPlates, ...] = Field(min_length=1)


class TrainingConfig(Section):
    """The whole file. `training` holds the network, the loss and the augmentation as tables of their own."""

    name: str = Field("trained", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="a file name without suffix")
    out: Path = Path("training")
    start_from: str | None = None
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    tensorboard: bool = False
    balance: tuple[Output, ...] = Field(
        (), description="outputs to shift to where the validation stacks' Dice is highest"
    )
    data: DataSection = Field(default_factory=lambda: DataSection.model_validate({}))
    training: TrainSettings = TrainSettings()
    viability: ViabilitySection | None = None


def load_training_config(path: Path) -> TrainingConfig:
    """Read a file; ConfigError names the key and what to write. Its paths are relative to it."""
    try:
        text = read_regular_text(path)
        table = parse_toml(text)
    except (OSError, UnicodeDecodeError) as error:
        do = "check the path; `examples/training/` has some to start from"
        raise ConfigError(f"cannot read the configuration: {error}", where=str(path), do=do) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path), do="put texts in double quotes") from error
    return build_training_config(table, base=path.parent, where=str(path), text=text)


def build_training_config(table: dict[str, Any], *, base: Path, where: str, text: str = "") -> TrainingConfig:
    """A configuration from tables as TOML gives them; ConfigError as `load_training_config`."""
    try:
        config = TrainingConfig.model_validate(table)
    except (ConfigError, ModelError) as error:  # of a table that is a dataclass, which knows no file
        place = f"{where}, {error.where}" if error.where else where
        raise ConfigError(error.what, where=place, do=error.do) from error
    except ValidationError as error:
        fault = explain(error, TrainingConfig, table)[0]
        line = fault.line(text)
        place = f"{where}, line {line}" if line else where
        raise ConfigError(
            f"{fault.key}: {fault.what}", where=place, do=fault.do or _keys(fault.location[:-1])
        ) from error
    _check_apart(config, where)
    _check_recordings_apart(config.data, where)
    if not config.data.train and not config.data.recordings:
        raise ConfigError("there is nothing to learn from", where=where, do="add [[data.train]] or [[data.recordings]]")
    if config.balance and not config.data.validation and not config.data.validation_recordings:
        do = "add [[data.validation]] or [[data.validation_recordings]], or leave `balance` out"
        raise ConfigError("balance has no stacks to be decided by", where=where, do=do)
    absolute: TrainingConfig = _with_absolute_paths(config, base.absolute())
    return absolute


def _keys(location: tuple[str, ...]) -> str:
    """What may stand in a table below [training], whose tables are dataclasses."""
    owner: Any = TrainingConfig
    for name in location:
        owner = get_type_hints(owner).get(name)
    return f"write one of: {', '.join(get_type_hints(owner))}" if is_dataclass(owner) else "see examples/training/"


def _check_apart(config: TrainingConfig, where: str) -> None:
    """No plate's patients may be judged by, or chosen on, that were learnt from."""
    data, seen = config.data, dict[int, str]()
    learnt = (*data.train, *(config.viability.plates if config.viability is not None else ()))
    for part, group in (("train", learnt), ("validation", data.validation), ("held_out", data.held_out)):
        for plates in group:
            for seed in range(plates.first_seed, plates.first_seed + plates.plates):
                other = seen.setdefault(seed, part)
                if other != part:
                    what = f"plates of seed {seed}, which share their patients, stand in {other} and in {part}"
                    raise ConfigError(what, where=where, do="give each part seeds of its own")


def _check_recordings_apart(data: DataSection, where: str) -> None:
    """No recording may stand twice under one name, nor its files or its patient on both sides."""
    names = [one.name for one in (*data.recordings, *data.validation_recordings)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two recordings are called {twice!r}", where=where, do="give each a name of its own")
    for what in ("path_488", "path_561", "patient"):
        learnt, watched = (
            {value: one.name for one in part if (value := getattr(one, what)) is not None}
            for part in (data.recordings, data.validation_recordings)
        )
        for value in learnt.keys() & watched.keys():
            told = f"{what} of {learnt[value]!r}, which is learnt from, and of {watched[value]!r}, which validates"
            raise ConfigError(f"{value} is {told}", where=where, do="keep it on one side")


def _with_absolute_paths(model: Any, base: Path) -> Any:
    """Every path of the tree made absolute, without ".." and links: one file has one name."""
    if isinstance(model, Path):
        return (base / model.expanduser()).resolve()
    if isinstance(model, tuple) and all(isinstance(item, BaseModel) for item in model):
        return tuple(_with_absolute_paths(item, base) for item in model)
    if isinstance(model, BaseModel):
        changed = {name: _with_absolute_paths(getattr(model, name), base) for name in type(model).model_fields}
        return model.model_copy(update=changed)
    return model


PRESETS: dict[str, dict[str, object]] = {
    "quick": {  # of 3 minutes on two cores, rendering takes one
        "name": "quick",
        "out": "training-quick",
        "data": {
            "cache": "training-cache",
            "train": [{"kind": "demo", "first_seed": 1000, "plates": 3}],
            "validation": [{"kind": "demo", "first_seed": 5000, "plates": 1}],
        },
        "training": {
            "steps": 240,
            "batch": 2,
            "patch": [32, 48, 48],
            "learning_rate": 3e-3,
            "ema_decay": 0.97,
            "every": 80,
            "network": {"base": 6, "levels": 3, "spacing_um": [1.0, 1.0, 1.0]},
        },
    },
}


def training_preset(name: str, folder: Path) -> TrainingConfig:
    """A preset that writes below `folder`; ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}", where="train", do=f"use one of: {', '.join(PRESETS)}")
    return build_training_config(PRESETS[name], base=folder, where=f"preset {name}")
