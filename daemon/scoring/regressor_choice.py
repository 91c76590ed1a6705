"""Which viability regressor a plate's settings name."""

from pathlib import Path

from spheroidd.daemon.config.model import InferenceConfig
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.errors import ModelError


def chosen_regressor(inference: InferenceConfig) -> ViabilityRegressor:
    """The regressor of [inference] regressor; ModelError names the key where its file or card is not one's."""
    if inference.regressor == "default":
        return ViabilityRegressor.load()
    path = Path(inference.regressor)
    try:
        return ViabilityRegressor.load(path.with_suffix(".safetensors") if path.suffix == ".json" else path)
    except ModelError as error:
        do = 'write "default", or the path of a file that `spheroidd regressor train` wrote, with its card beside it'
        raise ModelError(f"inference.regressor: {error.what}", where=error.where, do=do) from error
