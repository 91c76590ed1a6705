"""The words of CAM: whatever the bytes, however they are cut, nothing crashes and no message is lost."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.sources.leica.cam_messages import (
    MAX_LINE_BYTES,
    CamCommand,
    CamMessage,
    CamReader,
    read_message,
)
from spheroidd.protocols.errors import ConfigError

ENDS = (b"\x00", b"\r", b"\n", b"\r\n", b"\x00\r\n", b"\n\x00\x00")
ENABLE = CamCommand.of("enable", slide=0, wellx=1, welly=2, fieldx=1, fieldy=1, value=True)


def read(data: bytes, cuts: Iterator[int]) -> list[CamMessage]:
    """The messages of a connection whose packets are so long, one after the other."""
    reader, at = CamReader(), 0
    messages: list[CamMessage] = []
    while at < len(data):
        step = next(cuts)
        messages += reader.feed(data[at : at + step])
        at += step
    return messages


def random_cuts(draw: random.Random, n_bytes: int) -> Iterator[int]:
    """Byte by byte, in small pieces, in packets or whole; long data not byte by byte, which would only take long."""
    choices = draw.choice(((1,), (1, 2, 3, 50), (1460,), (1, 100_000))) if n_bytes < 2_000 else (997, 1460)
    while True:
        yield draw.choice(choices)


def valid_line(draw: random.Random, number: int) -> bytes:
    """A message that LAS X may send, with a number by which it is known again."""
    return draw.choice(
        (
            rf"/relpath:exp {number}\slide--S00\chamber--U0{number % 10}--V00\image--Z0{number}.ome.tif",
            f"/app:matrix /sys:{number} /inf:scanfinished",
            f"/cli:me /app:matrix /cmd:enable /slide:0 /wellx:{number} /welly:1 /value:true",
            f"/app:matrix /sys:0 /dev:stage /info_for:me /unit:meter /xpos:{number}e-3 /ypos:-0.01 /zpos:0",
        )
    ).encode()


def garbage(draw: random.Random) -> bytes:
    """Bytes between two line ends: noise, other alphabets, half messages, slashes and colons, very long lines."""
    kind = draw.randrange(7)
    if kind == 0:
        return draw.randbytes(draw.randrange(40)).translate(None, b"\x00\r\n")
    if kind == 1:
        return "/relpath:Öl\\日本\\µ".encode(draw.choice(("utf-8", "utf-16-le"))).translate(None, b"\x00\r\n")
    if kind == 2:
        return valid_line(draw, 5)[: draw.randrange(30)]
    if kind == 3:
        return bytes(draw.choices(b"/: \t\\{}%", k=draw.randrange(50)))
    if kind == 4 and draw.random() < 0.01:
        return b"/cmd:" + b"x" * draw.randrange(MAX_LINE_BYTES - 10, 3 * MAX_LINE_BYTES)
    return draw.choice((b"", b"Welcome client : 1", b"/", b"/:", b" /cmd", b"\xff\xfe"))


def hostile_sequence(draw: random.Random) -> tuple[bytes, list[bytes]]:
    """The bytes of a connection, and the messages in it."""
    data, valid = b"", []
    for number in range(draw.randrange(8)):
        for _ in range(draw.randrange(3)):
            data += garbage(draw) + draw.choice(ENDS)
        valid.append(valid_line(draw, number))
        data += valid[-1] + draw.choice(ENDS)
    return data + garbage(draw)[:200], valid  # a tail that no line end follows


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**64))
def test_hostile_sequences_lose_no_message(seed: int) -> None:
    """150 times 20 of them; hypothesis draws the seed, because drawing each byte would take minutes."""
    assert lost_of_hostile_sequences(seed) == []


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**64))
def test_ten_thousand_hostile_sequences_lose_no_message(seed: int) -> None:
    assert lost_of_hostile_sequences(seed) == []


def lost_of_hostile_sequences(seed: int) -> list[bytes]:
    """Of 20 connections the bytes of those whose messages did not all arrive, in their order."""
    draw, lost = random.Random(seed), []
    for _ in range(20):
        data, valid = hostile_sequence(draw)
        came = iter([message.text.encode("utf-8", "replace") for message in read(data, random_cuts(draw, len(data)))])
        if not all(any(text == line for text in came) for line in valid):
            lost.append(data)
    return lost


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=20)), st.sampled_from(ENDS), st.integers(1, 40))
def test_any_bytes_are_read_however_they_are_cut(lines: list[bytes], end: bytes, step: int) -> None:
    data = end.join(lines) + end
    whole = read(data, itertools.repeat(len(data)))
    assert read(data, itertools.repeat(step)) == whole
    for message in whole:
        assert isinstance(message.echoes(ENABLE), bool)
        assert message.scan in (None, "scanstart", "scanfinished")
        assert message.relpath is None or "\\" not in message.relpath


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_twenty_in_a_burst_are_twenty(step: int) -> None:
    lines = [rf"/relpath:exp\slide--S00\image--Z{z:02d}--C00.ome.tif" for z in range(20)]
    came = read("\r\n".join(lines).encode() + b"\r\n", itertools.repeat(step))
    assert [message.text for message in came] == lines
    assert came[3].relpath == "exp/slide--S00/image--Z03--C00.ome.tif"


def test_a_line_longer_than_any_message_is_dropped_and_the_next_is_read() -> None:
    reader = CamReader()
    came = reader.feed(b"/relpath:" + b"x" * MAX_LINE_BYTES + b"\r\n/inf:scanfinished\r\n")
    assert [message.scan for message in came] == ["scanfinished"]
    assert reader.n_dropped == 1


def test_blanks_without_end_are_read_in_no_time() -> None:
    """A line of 64,000 blanks must not cost their square."""
    assert read_message(" " * 64_000 + "/cmd:x").command == "x"


@pytest.mark.parametrize(
    ("text", "echoes"),
    [
        ("/cli:spheroidd /app:matrix /cmd:enable /slide:0 /wellx:1 /welly:2 /fieldx:1 /fieldy:1 /value:true", True),
        ("/app:matrix /sys:1 /cmd:ENABLE /value:True", True),
        ("/app:matrix /cmd:enable", True),
        ("/app:matrix /cmd:enable /wellx:2", False),
        ("/app:matrix /cmd:enableall /value:true", False),
        ("/app:matrix /cmd:", False),
        ("/relpath:cmd:enable", False),
        ("Welcome client : 1", False),
    ],
)
def test_an_echo_has_the_same_command_and_contradicts_nothing(text: str, echoes: bool) -> None:
    assert read_message(text).echoes(ENABLE) is echoes


@pytest.mark.parametrize(
    ("text", "scan"),
    [
        ("/app:matrix /sys:1 /inf:scanfinished", "scanfinished"),
        ("/app:matrix /sys:0 /info:ScanStart", "scanstart"),
        ("/cli:other /cmd:note /txt:scanfinished", None),
        (r"/relpath:scanfinished", None),
        ("scanfinished", None),
    ],
)
def test_the_end_of_a_scan_is_known_by_its_value(text: str, scan: str | None) -> None:
    assert read_message(text).scan == scan


@pytest.mark.parametrize("value", ["", "a\nb", "a /cmd:stopscan", "/cmd:stopscan", "Schärfe", "a\x00"])
def test_a_value_that_would_be_another_message_is_not_sent(value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be sent to LAS X as fil"):
        CamCommand.of("load", fil=value)


def test_a_command_is_written_as_las_x_reads_it() -> None:
    load = CamCommand.of("load", sys=0, fil="{ScanningTemplate}plate 7")
    assert load.line("me") == b"/cli:me /app:matrix /sys:0 /cmd:load /fil:{ScanningTemplate}plate 7"
    assert read_message(load.line("me").decode()).echoes(load)
