"""The pattern of raw frames as a message of the wire contract, and back."""

from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import Beams, ChannelOptics, RawOrder, SimPattern, pattern_from

_ORDER: RawOrder = ("z", "angle", "phase")


def sim_pattern(given: wire.RawPattern, where: str) -> SimPattern:
    """The pattern that a program promises; ConfigError for one that cannot be, or that lacks a number."""
    for name in ("n_angles", "n_phases"):
        if not given.HasField(name):
            raise ConfigError(f"raw.{name} is missing", where=where, do=f"give {name} in `open`")
    fields = {
        "n_angles": given.n_angles,
        "n_phases": given.n_phases,
        "order": tuple(given.order) or _ORDER,
        "beams": given.beams or Beams.TWO,
        "step_sign": -1 if given.reversed_steps else 1,
        "flip_y": given.flip_y,
        "offset_adu": given.offset_adu,
        "angles_deg": tuple(given.angles_deg) or None,
        "period_um": tuple((one.channel, one.period_um) for one in given.optics if one.HasField("period_um")),
        "optics": tuple(_optics(one, where) for one in given.optics),
    }
    return pattern_from(fields)


def _optics(given: wire.RawOptics, where: str) -> ChannelOptics:
    for name in ("emission_nm", "na"):
        if not given.HasField(name):
            raise ConfigError(f"raw.optics.{name} is missing", where=where, do=f"give {name} of {given.channel!r}")
    sigma = given.psf_sigma_um if given.HasField("psf_sigma_um") else None
    return ChannelOptics.stated(given.channel, given.emission_nm, given.na, sigma, tuple(given.otf_table))


def raw_pattern(pattern: SimPattern) -> wire.RawPattern:
    """A pattern as a program sends it."""
    message = wire.RawPattern(
        n_angles=pattern.n_angles,
        n_phases=pattern.n_phases,
        order=pattern.order,
        beams=pattern.beams,
        reversed_steps=pattern.step_sign < 0,
        flip_y=pattern.flip_y,
        offset_adu=pattern.offset_adu,
        angles_deg=pattern.angles_deg or (),
    )
    for one in pattern.optics:
        optics = message.optics.add(channel=one.channel, emission_nm=one.emission_nm, na=one.na)
        optics.otf_table.extend(one.otf_table)
        if one.psf_sigma_um is not None:
            optics.psf_sigma_um = one.psf_sigma_um
        period_um = pattern.period_of(one.channel)
        if period_um is not None:
            optics.period_um = period_um
    return message
