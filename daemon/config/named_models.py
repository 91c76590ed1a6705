"""Which models a plate's settings name, and whether they are models."""

from pathlib import Path

from spheroidd.daemon.config.model import InferenceConfig
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.errors import ConfigError, ModelError


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


def check_models(inference: InferenceConfig) -> None:
    """ConfigError where a model or regressor that is named is none; the model's weights are not read."""
    from spheroidd.inference.segmentation.choice import model_digest  # numpy and its like, which a reader does not need

    model = str(inference.model)
    try:
        model_digest(None if model == "default" else model)
    except ModelError as error:
        do = f"{error.do}; `spheroidd model list` names those of this computer"
        raise ConfigError(f"inference.model: {error.what}", where=error.where, do=do) from error
    try:
        chosen_regressor(inference)
    except ModelError as error:
        raise ConfigError(error.what, where=error.where, do=error.do) from error
