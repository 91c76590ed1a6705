"""Which channel is which: by all that the names say, one recognised settling the other, nothing taken in silence."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.channel_names import meaning, only_channel, tell_apart
from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.protocols.errors import StackError
from spheroidd.testing.source_contract import FakeClock, take
from tests.acquisition.images.test_recorded_formats import plate
from tests.acquisition.sources.test_replay import STACK, write_ome

LIVE = [
    "488", "488 nm", "w2conf488-488dual", "Calcein", "Calcein-AM", "calcein AM (green)", "GFP", "EGFP", "sfGFP", "FITC",
    "Alexa 488", "Alexa Fluor 488", "AF488", "Live", "live cells", "Viable", "LIVE/DEAD green", "525",
    "525/50", "Em 520",    "488/525", "470/510", "FITC 475/536", "Fluo-4",
    "SYTO 9", "Fluorescein", "FDA", "Green", "Cy2",
]  # fmt: skip
DEAD = [
    "561", "561 nm", "PI", "PI_500ms", "PI (617)", "Propidium Iodide", "propidium iodide 535/617", "EthD-1", "EthD-III",
    "ethidium homodimer-1", "Dead", "dead cells", "non-viable", "LIVE/DEAD Fixable Red", "TRITC", "Rhodamine", "RFP",
    "mCherry", "DsRed", "tdTomato", "Texas Red", "Cy3", "Alexa 568", "Alexa Fluor 594", "AF555", "7-AAD",
    "SYTOX Orange",    "DRAQ7", "620", "617/73", "561/620", "532", "568", "Red",
]  # fmt: skip
NEITHER = ["DAPI", "Hoechst 33342", "BF", "Brightfield", "TL DIC", "Phase", "Trans", "405", "Cy5", "640", "Alexa 647"]
NOTHING = [
    "", "C1", "Ch0", "Channel:0:1", "Ch1-T2", "Camera", "conf561-488dual", "488/617", "LIVE/DEAD", "spinning disk",
    "olive", "deadline", "pipette", "picture", "w1", "100x", "Exposure 488 ms",
]  # fmt: skip


MEANINGS = {"488": LIVE, "561": DEAD, "other": NEITHER, None: NOTHING}


@pytest.mark.parametrize(
    ("name", "means"),
    [(n, "488") for n in LIVE]
    + [(n, "561") for n in DEAD]
    + [(n, "other") for n in NEITHER]
    + [(n, None) for n in NOTHING],
)
def test_a_name_means_one_channel_or_nothing(name, means):
    assert meaning(name) == means
    assert meaning(name.upper()) == means


def layout(*names, n=None):
    return FileLayout(n or len(names), 1, 4, 4, "uint16", tuple(names))


@pytest.mark.parametrize(
    ("names", "live", "dead"),
    [
        (("EthD-1", "Calcein AM"), 1, 0),
        (("Calcein AM", "EthD-1"), 0, 1),
        (("TRITC", "Calcein"), 1, 0),
        (("w1conf561-488dual", "w2conf488-488dual"), 1, 0),
        (("something", "PI"), 0, 1),
        (("PI", "something"), 1, 0),
        (("PI", ""), 1, 0),
        (("Ch1", "GFP"), 1, 0),
        (("488/525", "488/617"), 0, 1),
        (("488/617", "488/525"), 1, 0),
        (("568", "520"), 1, 0),
        (("BF", "PI", "GFP"), 2, 1),
        (("BF", "red", "something"), 2, 1),
        (("DAPI", "GFP", "mCherry", "Cy5"), 1, 2),
        (("CellTracker Red", "SYTOX Green"), 0, 1),
        (("DRAQ7", "CMFDA"), 1, 0),
    ],
)
def test_one_recognised_channel_settles_the_other(names, live, dead):
    found = tell_apart(Path("a.tif"), layout(*names))
    assert found.channels == {"488": live, "561": dead}
    assert "does not name" not in found.how
    assert bool(found.doubt) == ("something" in names or "617" in " ".join(names) or "w1conf561" in names[0])


@pytest.mark.parametrize("names", [("foo", "bar"), ("Cy-something", "x1"), ("spinning disk A", "spinning disk B")])
def test_names_that_are_not_understood_are_told(names):
    found = tell_apart(Path("a.tif"), layout(*names))
    assert found.channels == {"488": 0, "561": 1}
    assert all(repr(name) in found.doubt and repr(name) in found.how for name in names)


@pytest.mark.parametrize(
    "names", [(), ("", ""), ("Ch1", "Ch2"), ("Channel:0:0", "Channel:0:1"), ("C0", "C1"), ("0", "1")]
)
def test_channels_that_nobody_named_are_taken_by_their_order(names):
    found = tell_apart(Path("a.tif"), layout(*names, n=2))
    assert (found.channels, found.doubt) == ({"488": 0, "561": 1}, "")
    assert found.how == "by their order, live (488) first: the file does not name them"


def test_one_channel_that_nothing_names_is_taken_as_live_and_told():
    found = tell_apart(Path("a.tif"), layout(n=1))
    assert found.channels == {"488": 0}
    assert "one channel, and does not say which" in found.doubt


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("GFP", "FITC"), "2 of its channels are called what means 488: 'GFP', 'FITC'"),
        (("DAPI", "PI"), "their names do not say which are 488 and 561: 'DAPI', 'PI'; write channel_order"),
        (("a", "b", "c"), "3 channels"),
        (("GFP", "b", "c"), "3 channels.*'GFP', 'b', 'c'"),
        (("Brightfield",), "1 channels, and their names do not say"),
        (("Annexin V-FITC", "PI"), "their names do not say which are 488 and 561: 'Annexin V-FITC', 'PI'"),
        (("Caspase 3/7 Green", "PI"), "their names do not say"),
        (("CellMask Deep Red", "Calcein"), "their names do not say"),
        (("MitoTracker Red", "Calcein"), "their names do not say"),
        (("Phalloidin 568", "GFP"), "their names do not say"),
    ],
)
def test_names_that_contradict_or_are_of_something_else_are_refused(names, message):
    with pytest.raises(StackError, match=message):
        tell_apart(Path("a.tif"), layout(*names))


@pytest.mark.parametrize("names", [("DAPI", "Calcein", "PI"), ("PI",)])
def test_names_that_are_more_or_fewer_than_channels_belong_to_none(names):
    with pytest.raises(StackError, match=f"holds 2 channels and names {len(names)}.*; write channel_order"):
        tell_apart(Path("a.tif"), layout(*names, n=2))


def test_the_user_can_say_it():
    found = tell_apart(Path("a.tif"), layout("GFP", "FITC", "x"), ("561", "-", "488"))
    assert (found.channels, found.how) == ({"561": 0, "488": 2}, "as channel_order says")
    with pytest.raises(StackError, match="holds 2 channels, and channel_order says 3"):
        tell_apart(Path("a.tif"), layout("x", "y"), ("561", "-", "488"))


def test_a_file_given_for_one_channel_that_is_named_as_the_other_is_refused():
    assert only_channel(Path("a.tif"), layout("PI"), "561") == 0
    assert only_channel(Path("a.tif"), layout("x"), "561") == 0
    assert only_channel(Path("a.tif"), layout("x", "PI"), "488") == 0
    with pytest.raises(StackError, match="it is given for 561, and its channel's name 'Calcein' means 488"):
        only_channel(Path("a.tif"), layout("Calcein"), "561")


def test_a_replay_tells_of_names_that_it_does_not_understand_once(tmp_path):
    for well in ("A01", "A02"):
        write_ome(tmp_path / f"{well}.ome.tif", names=("alpha", "beta"))
    wells = plate(A01=tmp_path / "A01.ome.tif", A02=tmp_path / "A02.ome.tif")
    replay, told = ReplaySource(ReplaySettings(), wells, "p", FakeClock()), []
    replay.set_event_sink(told.append)
    for plan in replay.plans():
        frames = list(replay.frames(plan, set(plan.indices())))
        assert "'alpha', 'beta', are not understood" in frames[0].metadata["channels_told_apart"]
    assert [fault.code for fault in told] == ["recording-doubts"]
    assert "'alpha', 'beta', are not understood" in str(told[0].error)


def test_a_replay_takes_the_order_that_it_is_told(tmp_path):
    write_ome(tmp_path / "a.ome.tif", names=("alpha", "beta"))
    settings = ReplaySettings(channel_order=("561", "488"))
    replay = ReplaySource(settings, plate(A01=tmp_path / "a.ome.tif"), "p", FakeClock())
    (plan,) = replay.plans()
    frames = take(replay, plan, set(plan.indices()))
    for index, pixels in frames.items():
        np.testing.assert_array_equal(pixels, STACK[("561", "488").index(index.channel), index.z])


def test_imagejs_labels_name_the_channels(tmp_path):
    labels = [f"c:{c + 1}/2 z:{z + 1}/7 - {name}" for z in range(7) for c, name in enumerate(("PI", "Calcein"))]
    metadata = {"axes": "ZCYX", "spacing": 0.5, "unit": "um", "Labels": labels}
    tifffile.imwrite(tmp_path / "a.tif", STACK.swapaxes(0, 1), imagej=True, resolution=(2, 2), metadata=metadata)
    replay = ReplaySource(ReplaySettings(pixel_um=0.5), plate(A01=tmp_path / "a.tif"), "p", FakeClock())
    (plan,) = replay.plans()
    for index, pixels in take(replay, plan, set(plan.indices())).items():
        np.testing.assert_array_equal(pixels, STACK[("561", "488").index(index.channel), index.z])
