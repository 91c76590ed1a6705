"""The wire to LAS X: commands are acknowledged or end in an error that says what to do, and nothing said is lost."""

import contextlib
import itertools
import socket

import pytest

from spheroidd.acquisition.sources.leica.cam_client import NOTICE_S, CamInterruptedError, LeicaCam
from spheroidd.acquisition.sources.leica.cam_messages import CamCommand
from spheroidd.acquisition.sources.leica.scan import STOP_S
from spheroidd.protocols.errors import InstrumentError
from spheroidd.protocols.well import WellId
from tests.acquisition.sources.leica.rig import fake_las_x, scripted_las_x

ECHO = b"/cli:spheroidd /app:matrix /cmd:startscan\r\n"
RELPATHS = b"".join(b"/relpath:exp\\slide--S00\\image--Z%02d.ome.tif\r\n" % z for z in range(20))
FOREVER_S = 3600.0


@contextlib.contextmanager
def connected(*answers, timeout_s=5.0, give_up=lambda: False, **script):
    with scripted_las_x(*answers, **script) as (port, received):
        cam = LeicaCam("127.0.0.1", port, timeout_s=timeout_s, give_up=give_up)
        with contextlib.closing(cam):
            cam.connect()
            yield cam, received


@pytest.mark.parametrize("welcome", [b"Welcome client : 1\r\n", b"Welcome client : 1\x00", b"Welcome client : 1"])
def test_the_greeting_is_heard_with_and_without_an_end(welcome: bytes) -> None:
    with connected(welcome=welcome) as (cam, _):
        assert cam.connected
        assert cam.welcome == "Welcome client : 1"


@pytest.mark.parametrize(
    "answer",
    [
        ECHO,
        ECHO.replace(b"\r\n", b"\x00"),
        ECHO.strip() + b" /tim:1",
        ECHO + ECHO,
        b"/cli:other /app:matrix /cmd:startscan\r\n" + ECHO,
        b"/app:matrix /cmd:stopscan\r\nnoise\xff\r\n" + ECHO,
        b"/app:matrix /sys:1 /inf:scanstart\r\n" + ECHO,
        RELPATHS + ECHO + RELPATHS,
    ],
    ids=["echo", "NUL", "no line end", "twice", "another client's", "others before", "event before", "in a burst"],
)
def test_an_echo_acknowledges_whatever_comes_with_it(answer: bytes) -> None:
    with connected(answer) as (cam, received):
        cam.start_scan()
        assert received == [b"/cli:spheroidd /app:matrix /cmd:startscan"]


def test_a_burst_of_twenty_is_twenty_hints_and_the_end_of_the_scan() -> None:
    end = b"/app:matrix /sys:0 /inf:scanfinished\r\n"
    with connected(RELPATHS + ECHO + RELPATHS + end) as (cam, _):
        cam.start_scan()
        while not cam.n_finished:
            cam.poll(0.1)
        assert len(cam.hints) == 40
        assert cam.hints[3] == "exp/slide--S00/image--Z03.ome.tif"


def test_what_was_said_before_hanging_up_is_heard() -> None:
    with connected(ECHO + RELPATHS + b"/app:matrix /inf:scanfinished\r\n", None) as (cam, _):
        cam.start_scan()
        with pytest.raises(InstrumentError):
            cam.stop_scan()
        assert (len(cam.hints), cam.n_finished, cam.connected) == (20, 1, False)


def test_an_end_of_scan_without_a_line_end_is_believed_once_nothing_follows() -> None:
    with connected(ECHO + b"/app:matrix /sys:0 /inf:scanfinished") as (cam, _):
        cam.start_scan()
        while not cam.n_finished:
            cam.poll(0.1)
            cam.settle_tail()
        assert cam.n_finished == 1


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ((b"",), "did not acknowledge 'startscan' within 0.3 s.*raise source.timeout_s"),
        ((b"/app:matrix /cmd:stopscan\r\n",), "did not acknowledge 'startscan'"),
        ((b"/app:matrix /cmd:startscan /err:no template\r\n",), "refused 'startscan': .*no template.*correct what"),
        ((b"/app:matrix /error:busy\r\n",), "refused 'startscan'.*busy"),
        ((None,), "LAS X hung up.*see that LAS X runs"),
    ],
    ids=["silence", "another echo", "refused", "an error", "hung up"],
)
def test_a_command_that_is_not_acknowledged_says_what_to_do(answers: tuple[bytes | None], message: str) -> None:
    with (
        connected(*answers, timeout_s=0.3) as (cam, _),
        pytest.raises(InstrumentError, match=f"LAS X at 127.*{message}"),
    ):
        cam.start_scan()


def test_a_port_where_nobody_listens_says_what_to_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InstrumentError, match=rf"LAS X at 127.0.0.1:{port}: no connection.*source.host, source.port"):
        LeicaCam("127.0.0.1", port).connect()


def test_a_port_where_someone_else_is_silent_is_no_las_x() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cam = LeicaCam("127.0.0.1", listener.getsockname()[1], timeout_s=0.2)
        with pytest.raises(InstrumentError, match=r"did not greet within 0\.2 s"):
            cam.connect()
        assert not cam.connected


def test_a_host_that_is_not_known_names_its_key() -> None:
    with pytest.raises(InstrumentError, match=r"source\.host"):
        LeicaCam("no such host", 8895).connect()


def test_whoever_waits_for_the_greeting_can_give_up() -> None:
    asked = itertools.count()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cam = LeicaCam("127.0.0.1", listener.getsockname()[1], timeout_s=FOREVER_S, give_up=lambda: next(asked) > 3)
        with contextlib.closing(cam), pytest.raises(CamInterruptedError):
            cam.connect()


def test_whoever_waits_for_an_echo_can_give_up() -> None:
    asked = itertools.count()
    with (
        connected(b"", timeout_s=FOREVER_S, give_up=lambda: next(asked) > 5) as (cam, _),
        pytest.raises(CamInterruptedError),
    ):
        cam.start_scan()


def test_an_order_to_give_up_is_asked_for_often_enough() -> None:
    """With both, an abort ends within a second whatever LAS X does."""
    assert STOP_S + 4 * NOTICE_S < 1.0


@pytest.mark.parametrize(
    ("said", "stage_um"),
    [
        (b"/unit:meter /xpos:0.0145 /ypos:-0.01 /zpos:0.000002", (14500.0, -10000.0, 2.0)),
        (b"/unit:microns /xpos:14500 /ypos:-10000", (14500.0, -10000.0, 0.0)),
        (b"/xpos:0,0145 /ypos:0", (14500.0, 0.0, 0.0)),
    ],
)
def test_the_stage_is_told_in_micrometres(said: bytes, stage_um: tuple[float, float, float]) -> None:
    with connected(b"/app:matrix /sys:1 /dev:stage /info_for:spheroidd " + said + b"\r\n") as (cam, _):
        assert cam.stage_um() == pytest.approx(stage_um)


@pytest.mark.parametrize(
    "said", [b"/unit:meter /xpos:nan /ypos:0", b"/unit:furlong /xpos:1 /ypos:1", b"/xpos: /ypos:x"]
)
def test_a_stage_that_is_nowhere_is_not_believed(said: bytes) -> None:
    with connected(b"/dev:stage " + said + b"\r\n") as (cam, _), pytest.raises(InstrumentError, match="no position"):
        cam.stage_um()


def test_the_commands_are_what_las_x_reads(tmp_path) -> None:
    well = WellId.parse("B03")
    with fake_las_x(tmp_path) as server, contextlib.closing(LeicaCam(*server.address)) as cam:
        cam.connect()
        cam.load_template("plate 7")
        cam.enable_all(False)
        cam.enable(well, 0, 1)
        cam.enable(well, 0, 1, value=False)
        cam.tell(CamCommand.of("pausescan"))
        cam.tell(CamCommand.of("pausescan"))
        cam.tell(CamCommand.of("autofocusscan"))
        cam.delete_list()
        cam.add_to_list("Job8", well, 0, 0)
        cam.start_cam_scan(60, 60)
        cam.stop_cam_scan()
        cam.stop_scan()
        cam.stage_um()
        assert server.template == "plate 7"
        said = [line.removeprefix("/cli:spheroidd /app:matrix ") for line in server.commands]
    assert said == [
        "/sys:0 /cmd:load /fil:{ScanningTemplate}plate 7",
        "/cmd:enableall /value:false",
        "/cmd:enable /slide:0 /wellx:3 /welly:2 /fieldx:1 /fieldy:2 /value:true",
        "/cmd:enable /slide:0 /wellx:3 /welly:2 /fieldx:1 /fieldy:2 /value:false",
        "/cmd:pausescan",
        "/cmd:pausescan",
        "/cmd:autofocusscan",
        "/cmd:deletelist",
        "/cmd:add /tar:camlist /exp:Job8 /ext:none /slide:0 /wellx:3 /welly:2 /fieldx:1 /fieldy:1 /dxpos:0 /dypos:0",
        "/cmd:startcamscan /runtime:60 /repeattime:60",
        "/cmd:stopcamscan",
        "/cmd:stopscan",
        "/cmd:getinfo /dev:stage",
    ]


@pytest.mark.parametrize("packets", ["whole", "split", "burst"])
@pytest.mark.parametrize("line_end", ["crlf", "lf", "nul", "all"])
def test_the_wire_may_cut_and_join_as_it_likes(tmp_path, packets: str, line_end: str) -> None:
    with fake_las_x(tmp_path, packets=packets, line_end=line_end) as server:
        cam = LeicaCam(*server.address)
        with contextlib.closing(cam):
            cam.connect()
            for column in range(8):
                cam.enable(WellId(0, column), 0, 0)
            cam.tell(CamCommand.of("autofocusscan"))
            while cam.n_finished < 1:
                cam.poll(0.1)
            assert cam.n_started == 1


def test_one_command_pauses_a_scan_and_lets_it_go_on(tmp_path) -> None:
    with fake_las_x(tmp_path, pace="real") as server, contextlib.closing(LeicaCam(*server.address)) as cam:
        cam.connect()
        cam.enable_all()
        cam.start_scan()
        cam.tell(CamCommand.of("pausescan"))
        for _ in range(10):
            cam.poll(0.05)  # the scan takes less when nobody pauses it
        assert (cam.n_started, cam.n_finished) == (1, 0)
        cam.tell(CamCommand.of("pausescan"))
        while not cam.n_finished:
            cam.poll(0.1)
