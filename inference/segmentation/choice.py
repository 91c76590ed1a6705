"""Which segmenter a model's name means. Torch is loaded only where a network is named."""

from pathlib import Path

from spheroidd.inference.network.model_card import read_card
from spheroidd.inference.segmentation.precision import AUTO
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter, is_threshold
from spheroidd.protocols.ports import Segmenter


def open_segmenter(
    model: str | None = None, device: str = "auto", threads: int | None = None, precision: str = AUTO
) -> Segmenter:
    """A network by name or path (None: the default) as `segmenter.load_segmenter` has it, or "threshold[:LEVEL]".

    A threshold computes on the processor in fp32, whatever device and precision are named. ModelError where it cannot
    be had.
    """
    if model is not None and is_threshold(model):
        return ThresholdSegmenter.named(model)
    from spheroidd.inference.segmentation.segmenter import load_segmenter

    return load_segmenter(model, device, threads, precision)


def model_digest(model: str | Path | None = None) -> str:
    """What names the model in every result row, known without loading it; ModelError as `open_segmenter`."""
    name = None if model is None else str(model)
    return ThresholdSegmenter.named(name).sha256 if name and is_threshold(name) else read_card(name).sha256
