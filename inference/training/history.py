"""What a training writes down as it goes: a CSV row for each report, and TensorBoard's events where asked for."""

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spheroidd.protocols.durable import replacing
from spheroidd.protocols.errors import ConfigError

CSV_NAME = "log.csv"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: `loss` is the mean since the last report, `dice` per stack name, (live, dead)."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    dice: dict[str, tuple[float, float]]

    def mean_dice(self) -> tuple[float, float]:
        """Live and dead, the mean over the stacks (NaN without)."""
        live, dead = np.mean(list(self.dice.values()), axis=0) if self.dice else (math.nan, math.nan)
        return float(live), float(dead)

    def row(self) -> dict[str, float]:
        """A row of the log; `seconds` count from the start or the last resumption."""
        live, dead = self.mean_dice()
        scalars = {"step": self.step, "loss": self.loss, "learning_rate": self.learning_rate, "seconds": self.seconds}
        return {**scalars, "live_dice": live, "dead_dice": dead}


def write_csv(path: Path, progress: Progress) -> None:
    """Add a row, below a heading where the file is new; rows of steps that are trained anew go."""
    kept = [row for row in read_csv(path) if row["step"] < progress.step] if path.exists() else []
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, progress.row().keys())
        writer.writeheader()
        writer.writerows([*kept, progress.row()])


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a log; ConfigError where it is no log."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: int(value) if name == "step" else float(value) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot be read as a log: {error}", where=str(path), do="move it away") from error


@contextmanager
def tensorboard_writer(folder: Path) -> Iterator[Callable[[Progress], None]]:
    """Adds each report to TensorBoard's events in `folder`; ConfigError where no writer of them is installed."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        do = 'pip install "spheroidd[train]", or set tensorboard = false'
        raise ConfigError("TensorBoard's writer is not installed", where="training", do=do) from error

    def write(progress: Progress) -> None:
        for name, value in progress.row().items():
            if name != "step" and math.isfinite(value):
                writer.add_scalar(name, value, progress.step)
        writer.flush()

    with SummaryWriter(str(folder)) as writer:  # what it holds back is written when it is closed
        yield write
