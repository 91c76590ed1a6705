"""Every fault that is raised by its code: how grave it is, who ends it, and what it means.

A fault stands in the catalog from its beginning to its end, and is an alarm as long as it stands. A new one is a row
here; `docs/service.md` shows this table, and a test compares the two.
"""

from enum import StrEnum
from typing import Self


class Severity(StrEnum):
    """How grave a fault is."""

    CRITICAL = "critical"  # no slice is taken until a person acts
    WARNING = "warning"


class EndedBy(StrEnum):
    """Who writes a fault's end down."""

    LOOK = "look"  # the next look at the plate's state that does not find it any more
    EVENT = "event"  # what follows in the catalog: the stack is whole, the daemon runs again
    RAISER = "raiser"  # whoever raised it, when the cause is gone
    NOBODY = "nobody"  # it cannot be undone, and stands for as long as the catalog is kept


class FaultCode(StrEnum):
    """A fault's code, which never changes once it has shipped; its text may."""

    severity: Severity
    ended_by: EndedBy
    meaning: str

    def __new__(cls, code: str, severity: Severity, ended_by: EndedBy, meaning: str) -> Self:
        """A row of the table: `meaning` says when the fault stands, in Markdown."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.severity, member.ended_by, member.meaning = severity, ended_by, meaning
        return member

    # The run
    PLATE_STOPPED = (
        "plate-stopped",
        Severity.CRITICAL,
        EndedBy.LOOK,
        "the daemon stopped or waits, and wells are left to image or stacks to score",
    )
    DAEMON_KILLED = (
        "daemon-killed",
        Severity.CRITICAL,
        EndedBy.EVENT,
        "the daemon before this one ended without a word (kill -9, power cut); ends as soon as this one is at work",
    )
    PLATE_ENDED = ("plate-ended", Severity.CRITICAL, EndedBy.RAISER, "a plate ended with an error")
    WORKER_DIED = (
        "worker-died",
        Severity.WARNING,
        EndedBy.RAISER,
        "the model's process died while it scored a stack",
    )
    WORKER_RESTARTED = (
        "worker-restarted",
        Severity.WARNING,
        EndedBy.EVENT,
        "the model's process died without a stack, and is started again",
    )
    DAEMON_BROKEN = (
        "daemon-broken",
        Severity.CRITICAL,
        EndedBy.EVENT,
        "a thread of the daemon broke, and so the daemon ended; the log has its traceback; "
        "ends as soon as a daemon is at work",
    )
    ALARMS_BROKEN = ("alarms-broken", Severity.WARNING, EndedBy.LOOK, "alarms are not looked for: report it")

    # The instrument and its files
    INSTRUMENT = ("instrument", Severity.CRITICAL, EndedBy.EVENT, "the instrument gave up")
    STALLED = (
        "stalled",
        Severity.CRITICAL,
        EndedBy.LOOK,
        "no slice for `stall_s` within a stack (or ten of its slices' periods), for `between_s` between two; "
        "not while paused",
    )
    QUARANTINE = (
        "quarantine",
        Severity.WARNING,
        EndedBy.RAISER,
        "files of a stack are not whole; they are left as they are",
    )
    WATCH_FOLDER = (
        "watch-folder",
        Severity.WARNING,
        EndedBy.RAISER,
        "images in the watched folder are not used, or a folder in it cannot be read",
    )
    LEICA_CAM = (
        "leica-cam",
        Severity.WARNING,
        EndedBy.RAISER,
        "the connection to LAS X is lost, though its scan goes on",
    )
    LEICA_SCAN = (
        "leica-scan",
        Severity.WARNING,
        EndedBy.RAISER,
        "a scan of LAS X could not be stopped: light goes on falling on the plate",
    )
    RECORDED_FACTS = (
        "recorded-facts",
        Severity.WARNING,
        EndedBy.NOBODY,
        "the catalog beside a replayed recording cannot be read: images are taken, their stage positions, exposures "
        "and times are missing",
    )
    RECORDING_DOUBTS = (
        "recording-doubts",
        Severity.WARNING,
        EndedBy.NOBODY,
        "a recording was read, and a person should look at it: channel names that are not understood, slices that are "
        "numbered from 2",
    )

    # Stacks
    STACK_INCOMPLETE = (
        "stack-incomplete",
        Severity.WARNING,
        EndedBy.LOOK,
        "a well's last stack lacks slices, and nobody ordered it so",
    )
    STACK_FAILED = ("stack-failed", Severity.WARNING, EndedBy.LOOK, "a well's last stack cannot be used")
    DUPLICATE_SLICE = (
        "duplicate-slice",
        Severity.WARNING,
        EndedBy.NOBODY,
        "a slice arrived twice with different pixels; the first is kept",
    )
    SLICES_LOST = (
        "slices-lost",
        Severity.WARNING,
        EndedBy.NOBODY,
        "slices that were acknowledged do not read back",
    )
    DAMAGED_SHARD = (
        "damaged-shard",
        Severity.WARNING,
        EndedBy.NOBODY,
        "a stored file of a stack was damaged and is set aside; its slices are taken again",
    )
    SCRUB_DAMAGE = (
        "scrub-damage",
        Severity.WARNING,
        EndedBy.LOOK,
        "the scrub read a stored stack again and it is not what was written; ends when the stack is whole again",
    )
    SCRUB_BROKEN = ("scrub-broken", Severity.WARNING, EndedBy.LOOK, "stored images are not verified: report it")
    RESCORE_FAILED = (
        "rescore-failed",
        Severity.WARNING,
        EndedBy.RAISER,
        "a stack that has a row could not be scored again; its row stays as it was",
    )
    SIM_PATTERN = (
        "sim-pattern",
        Severity.WARNING,
        EndedBy.NOBODY,
        "the pattern of a plate's raw frames cannot be trusted: the plate goes on in widefield",
    )
    NO_PLATE_LIMITS = (
        "no-plate-limits",
        Severity.WARNING,
        EndedBy.EVENT,
        "no control could be stored, so each stack is normalised by its own limits",
    )

    # The disk
    DISK_SHORT = (
        "disk-short",
        Severity.WARNING,
        EndedBy.LOOK,
        "the disk holds less than the rest of the plate needs (pyramid and masks counted, and `min_free_gb` kept)",
    )
    DISK_FULL = (
        "disk-full",
        Severity.CRITICAL,
        EndedBy.LOOK,
        "no byte is left, not even to write this down: seen from outside the daemon",
    )
    STORAGE = ("storage", Severity.CRITICAL, EndedBy.RAISER, "the disk refuses slices now")
    STORAGE_CATALOG = ("storage-catalog", Severity.CRITICAL, EndedBy.RAISER, "the disk refuses the catalog now")
    STORAGE_MASKS = ("storage-masks", Severity.WARNING, EndedBy.RAISER, "the disk refuses a stack's masks now")

    # Controls out of range: one for each flag on a plate's controls that stops the plate from being trusted
    QUALITY_BAD_CONTROL = (
        "quality-bad-control",
        Severity.WARNING,
        EndedBy.LOOK,
        "a control is unlike the others of its kind",
    )
    QUALITY_CONSTANT_CONTROLS = (
        "quality-constant-controls",
        Severity.WARNING,
        EndedBy.LOOK,
        "all untreated controls have the very same value",
    )
    QUALITY_CONTROL_CV = (
        "quality-control-cv",
        Severity.WARNING,
        EndedBy.LOOK,
        "the untreated controls spread too far",
    )
    QUALITY_CONTROL_LOST = (
        "quality-control-lost",
        Severity.WARNING,
        EndedBy.LOOK,
        "controls have no value, and nobody ordered it so",
    )
    QUALITY_CONTROLS_NOT_SEPARATED = (
        "quality-controls-not-separated",
        Severity.WARNING,
        EndedBy.LOOK,
        "untreated and killed controls cannot be distinguished",
    )
    QUALITY_Z_PRIME = ("quality-z-prime", Severity.WARNING, EndedBy.LOOK, "the plate's robust Z' is too low")

    # Doors
    FAILED_LOGINS = (
        "failed-logins",
        Severity.WARNING,
        EndedBy.LOOK,
        "20 calls or more within ten minutes had a token that is not valid",
    )

    # Receivers of alarms
    WEBHOOK_UNDELIVERED = (
        "webhook-undelivered",
        Severity.WARNING,
        EndedBy.LOOK,
        "the webhook could not be reached twice in a row; the notices wait",
    )
    EMAIL_UNDELIVERED = (
        "email-undelivered",
        Severity.WARNING,
        EndedBy.LOOK,
        "the mail server could not be reached twice in a row; the notices wait",
    )


_BY_CODE = {code.value: code for code in FaultCode}
_OF_FLAGS = {code.removeprefix("quality-"): code for code in FaultCode if code.startswith("quality-")}


def known(code: str) -> FaultCode | None:
    """The row of a code that stands in a catalog; None for one that only a newer or an outside program knows."""
    return _BY_CODE.get(code)


def severity(code: str) -> Severity:
    """How grave a code in a catalog is; a warning where it is not known here."""
    found = known(code)
    return found.severity if found else Severity.WARNING


def of_flag(code: str) -> FaultCode | None:
    """The alarm that a quality flag's code raises; None where it raises none.

    >>> of_flag("z-prime")
    <FaultCode.QUALITY_Z_PRIME: 'quality-z-prime'>
    >>> of_flag("outlier") is None
    True
    """
    return _OF_FLAGS.get(code)
