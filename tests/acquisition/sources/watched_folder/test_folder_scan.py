"""What a rescan finds where neither events nor folders' times are believed, and that it looks closely only at news."""

import os

import pytest

from spheroidd.acquisition.sources.watched_folder import folder_scan
from spheroidd.acquisition.sources.watched_folder.folder_scan import RELIST_S, FolderScan


@pytest.fixture
def scan(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.tif").write_bytes(b"one")
    return FolderScan(tmp_path, lambda path: True, lambda folder, names: False, rest_s=1.0, keeps_times=False)


@pytest.fixture
def listed(monkeypatch):
    """The folders whose entries were gone through."""
    seen, scandir = [], os.scandir

    def told(path):
        seen.append(os.path.basename(path))  # noqa: PTH119
        return scandir(path)

    monkeypatch.setattr(os, "scandir", told)
    return seen


def settle(scan):
    scan.rescan(0.0)
    assert sorted(scan.rescan(2.0).ready) == ["a/1.tif", "b/1.tif"]


def test_unchanged_names_are_not_gone_through_again(scan, listed, tmp_path):
    settle(scan)
    listed.clear()
    assert not scan.rescan(3.0).moving
    assert listed == []
    (tmp_path / "b" / "2.tif").write_bytes(b"two")
    assert scan.rescan(4.0).moving == ["b/2.tif"]
    assert listed == ["b"]


def test_a_new_name_is_seen_whatever_the_folders_time_says(scan, tmp_path):
    settle(scan)
    before = (tmp_path / "a").stat()
    (tmp_path / "a" / "1.tif").rename(tmp_path / "a" / "2.tif")  # as many names as before
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan.rescan(3.0).moving == ["a/2.tif"]


def test_a_new_folder_in_an_old_one_is_looked_into(scan, tmp_path):
    settle(scan)
    (tmp_path / "b" / "deep").mkdir()
    (tmp_path / "b" / "deep" / "3.tif").write_bytes(b"three")
    assert scan.rescan(3.0).moving == ["b/deep/3.tif"]


def test_a_file_that_vanishes_during_a_look_is_news_when_it_comes_again(scan, tmp_path, monkeypatch):
    settle(scan)
    path = tmp_path / "a" / "2.tif"
    path.write_bytes(b"two")
    stat = os.stat

    def vanishing(asked, **more):
        if os.fspath(asked).endswith("2.tif"):
            path.unlink(missing_ok=True)
        return stat(asked, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", vanishing)
        assert not scan.rescan(3.0).moving
    path.write_bytes(b"two")
    assert scan.rescan(4.0).moving == ["a/2.tif"]


def test_everything_is_gone_through_now_and_then_whatever_the_names_say(scan, listed, monkeypatch):
    settle(scan)
    listed.clear()
    now_s = folder_scan.time.monotonic()
    monkeypatch.setattr(folder_scan.time, "monotonic", lambda: now_s + RELIST_S)
    scan.rescan(3.0)
    assert len(listed) == 3
