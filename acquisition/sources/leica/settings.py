"""What a Leica under LAS X is told: where its CAM server is, which template to scan, and what a stack is.

The files are those of a Matrix Screener tree; what is said of them there holds here too.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from spheroidd.acquisition.sources.leica.cam_messages import CamCommand
from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings, Positive
from spheroidd.protocols.errors import ConfigError

Word = Annotated[str, Field(min_length=1, pattern=r"^[^\s/:]+$")]


class LeicaCamSettings(MatrixScreenerSettings):
    """Let LAS X scan the plate through its CAM server, and take the slices from the tree that it writes."""

    kind: Literal["leica-cam"] = "leica-cam"  # type: ignore[assignment]  # another kind of the same tree
    host: str = Field(default="127.0.0.1", min_length=1)
    """The computer on which LAS X runs."""
    port: int = Field(default=8895, ge=1, le=65535)
    """Of LAS X's CAM server."""
    client: Word = "spheroidd"
    """Our name in LAS X's log."""
    template: str = Field(min_length=1)
    """The scanning template to load, as LAS X's list shows it; it says how a well is imaged."""
    scan: Literal["well", "plate"] = "well"
    """"well": a scan for each well (and field), in our order, so that wells can be skipped, repeated and re-ordered;
    "plate": one scan for all wells that are still to come, in LAS X's order."""
    cam_job: str | None = Field(default=None, min_length=1)
    """The job's name in LAS X with which a well with missing slices is imaged again from a CAM list; without it by a
    scan of that well."""
    retries: int = Field(default=1, ge=0, le=10)
    """How often a well whose scan ended without all of its slices is imaged again."""
    timeout_s: Positive = 10.0
    """How long LAS X may take to connect or to acknowledge a command; loading a template may take longest."""

    # The stack, as the template's job makes it. Files that say otherwise are refused.
    n_z: int = Field(ge=1, le=100_000)
    height: int = Field(ge=1, le=65536)
    width: int = Field(ge=1, le=65536)
    dtype: Literal["uint8", "uint16"] = "uint16"
    pixel_um: Positive
    z_step_um: Positive
    slice_period_s: Positive | None = None
    """Seconds per z-step, all channels together, where it is known."""

    settle_s: Positive = 10.0
    """Once LAS X says that a scan has ended, files may come late for so long; then a missing slice is missing."""
    end_after_s: Positive = 300.0
    """While LAS X scans, nothing new for so long is a stall. Longer than a stack takes: its files may come together."""

    @field_validator("template", "cam_job")
    @classmethod
    def _can_be_sent(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                CamCommand.of("load", fil=text)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return text

    @field_validator("template")
    @classmethod
    def _is_a_name(cls, text: str) -> str:
        if text.lower().endswith((".xml", ".lrp")) or "{" in text or "\\" in text:
            raise ValueError(
                f"template is {text!r}; write the name without folder and ending, as LAS X's list shows it"
            )
        return text

    @model_validator(mode="after")
    def _stall_is_no_stack(self) -> Self:
        stack_s = self.n_z * (self.slice_period_s or 0.0)
        if self.end_after_s <= stack_s:
            raise ValueError(f"end_after_s = {self.end_after_s:g} is not above a stack's {stack_s:g} s; raise it")
        return self
