"""Trainings that need no file."""

from pathlib import Path

from spheroidd.daemon.training.config import TrainingConfig, build_training_config
from spheroidd.protocols.errors import ConfigError

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
