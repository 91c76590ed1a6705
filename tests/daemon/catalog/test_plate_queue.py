"""The queue of plates: its order, what is passed over, what comes of each, and that it outlives a daemon."""

from pathlib import Path

import pytest

from spheroidd.daemon.catalog.plate_ends import next_end, record_end
from spheroidd.daemon.catalog.plate_queue import PlateQueue, queue_run, queued_plates
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.errors import MissingError, RefusedError
from tests.daemon.report import plates


def names(catalog: Catalog) -> list[tuple[str, str]]:
    return [(one.plate, one.state) for one in queued_plates(catalog)]


def filled(folder: Path, *plates: str) -> PlateQueue:
    catalog = Catalog.create_or_open(folder)
    queue = PlateQueue(catalog, lambda: 100.0)
    for plate in plates:
        queue.add(plate, "Ada", 96)
    return queue


def test_plates_wait_in_the_order_of_their_submission_until_a_person_orders_otherwise(tmp_path: Path) -> None:
    queue = filled(tmp_path, "P1", "P2", "P3")
    with Catalog.create_or_open(tmp_path) as catalog:
        assert names(catalog) == [("P1", "waiting"), ("P2", "waiting"), ("P3", "waiting")]
        queue.arrange(["P3", "P1"])
        queue.add("P1", "Bob", 12)  # handed in again: its place stays
        assert [plate for plate, _ in names(catalog)] == ["P3", "P1", "P2"]
        assert {one.plate: one.n_wells for one in queued_plates(catalog)} == {"P3": 96, "P1": 12, "P2": 96}


def test_a_plate_that_is_held_is_passed_over(tmp_path: Path) -> None:
    queue = filled(tmp_path, "P1", "P2")
    queue.hold("P1", True)
    assert queue.next() == "P2"
    queue.started("P2")
    assert queue.next() is None
    queue.hold("P1", False)
    assert queue.next() == "P1"


def test_what_was_finished_says_how_and_waits_again_when_it_is_handed_in_again(tmp_path: Path) -> None:
    queue = filled(tmp_path, "P1", "P2")
    queue.started("P1")
    queue.ended("P1", "96 of 96 wells have a row")
    with Catalog.create_or_open(tmp_path) as catalog:
        assert names(catalog) == [("P2", "waiting"), ("P1", "finished")]
        assert queued_plates(catalog)[1].verdict == "96 of 96 wells have a row"
        queue.add("P1", "Ada", 96)
        assert names(catalog) == [("P2", "waiting"), ("P1", "waiting")]
        assert queued_plates(catalog)[1].verdict is None


def test_a_plate_that_was_stopped_in_the_middle_is_the_next(tmp_path: Path) -> None:
    queue = filled(tmp_path, "P1", "P2", "P3")
    queue.arrange(["P2"])
    queue.started("P1")
    queue.ended("P1", None)
    assert queue.next() == "P1"


def test_the_next_daemon_finds_the_queue_and_starts_nothing_by_itself(tmp_path: Path) -> None:
    queue = filled(tmp_path, "P1", "P2", "P3")
    queue.hold("P3", True)
    queue.arrange(["P2"])
    queue.go_on(True, "")
    queue.started("P1")
    with Catalog.create_or_open(tmp_path) as catalog:  # the one before was killed
        PlateQueue(catalog).take_up(["P1", "P4"])
        assert names(catalog) == [(plate, "waiting") for plate in ("P1", "P2", "P3", "P4")]
        assert [one.plate for one in queued_plates(catalog) if one.held] == ["P3"]
        assert (queue_run(catalog).goes_on, queue_run(catalog).why) == (False, "the daemon was started again")


@pytest.mark.parametrize(
    ("do", "kind"),
    [
        (lambda queue: queue.arrange(["P9"]), MissingError),
        (lambda queue: queue.arrange(["P1"]), RefusedError),
        (lambda queue: queue.hold("P1", True), RefusedError),
        (lambda queue: queue.remove("P1"), RefusedError),
        (lambda queue: queue.remove("P9"), MissingError),
    ],
)
def test_what_runs_or_is_not_there_is_refused(tmp_path: Path, do: object, kind: type[Exception]) -> None:
    queue = filled(tmp_path, "P1", "P2")
    queue.started("P1")
    with pytest.raises(kind):
        do(queue)  # type: ignore[operator]
    with Catalog.create_or_open(tmp_path) as catalog:
        assert names(catalog) == [("P1", "running"), ("P2", "waiting")]


def test_an_end_is_told_once_and_again_only_where_a_row_has_changed(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("P1", 2, 3, {"drug": 1.0})
    plates.register(tmp_path, wells)
    with Catalog.create_or_open(tmp_path) as catalog:
        for _ in range(2):
            record_end(catalog, "P1", "nothing came", 1.0, 2.0)
        plates.score(tmp_path, wells, live)
        record_end(catalog, "P1", "all came", 1.0, 3.0)
        first = next_end(catalog, 0, 0.0)
        assert first is not None
        second = next_end(catalog, first.id, 0.0)
        assert second is not None
        assert (first.verdict, second.verdict) == ("nothing came", "all came")
        assert next_end(catalog, second.id, 0.0) is None
        assert next_end(catalog, 0, 2.5) == second  # older ones are old news
