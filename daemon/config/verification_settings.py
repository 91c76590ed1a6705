"""[verification]: what the daemon reads again by itself, and how much of the computer that may take."""

from pydantic import Field

from spheroidd.daemon.config.table import Section


class VerificationConfig(Section):
    """[verification]: the scrub, which reads stored images again in the daemon's idle time."""

    scrub: bool = Field(default=True, description="whether the daemon verifies stored images while it is idle")
    share: float = Field(
        default=0.05, gt=0, le=1, description="of the time of one core, and of the disk, that the scrub may take"
    )
    every_h: float = Field(
        default=168.0, ge=0, le=87_600, description="a pass over all stacks begins so many hours after the last one"
    )
    quiet_s: float = Field(
        default=30.0, ge=0, le=86_400, description="idle: no slice and no row for so long, and no stack being scored"
    )
