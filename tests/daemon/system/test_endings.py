"""Endings that depend on nobody: a second Ctrl-C, a thread that died."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.system.thread_deaths import ThreadDeaths
from spheroidd.protocols.errors import DaemonError

HANGS = {
    "in main": "while True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass",
    "in a thread that Python waits for": "threading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)",
}


@pytest.mark.skipif(os.name != "posix", reason="a signal is sent to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("hang", HANGS)
def test_the_second_signal_ends_a_program_that_hangs(tmp_path: Path, hang: str, number: signal.Signals) -> None:
    program = f"""
import threading, time
from spheroidd.daemon.system.stop_signals import stopped_by_signals
with stopped_by_signals(lambda: print("stopping", flush=True), print):
    print("hangs", flush=True)
    {HANGS[hang].replace(chr(10), chr(10) + "    ")}
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "hangs\n"
            process.send_signal(number)
            for line in process.stdout:
                if line == "stopping\n":
                    break
            process.send_signal(number)
            process.communicate(timeout=20)  # it hangs for a minute
        finally:
            process.kill()
    assert process.returncode in (130, -signal.SIGINT, 1)


def test_a_thread_that_dies_ends_the_daemon_with_its_name(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as catalog, logging_to(tmp_path):
        with RunMonitor(tmp_path, catalog, AlarmsConfig()) as monitor:
            monitor.after_heartbeat("idle")
            thread = threading.Thread(target=lambda: 1 // 0, name="courier")
            thread.start()
            thread.join()
            with pytest.raises(DaemonError, match="the courier thread broke") as died:
                monitor.after_heartbeat("idle")
            monitor.after_heartbeat("idle")  # told once: what is in flight is still kept
        assert died.value.exit_code == 4
        assert "daemon-broken" in {fault.code for fault in catalog.faults()}
    log = (tmp_path / "logs" / "spheroidd.jsonl").read_text()
    assert "courier" in log
    assert "ZeroDivisionError" in log
    assert "Traceback" in log


def test_a_thread_that_ends_in_good_order_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), ThreadDeaths() as deaths:
        for ends in (lambda: None, sys.exit):
            thread = threading.Thread(target=ends)
            thread.start()
            thread.join()
        deaths.check()
    assert caplog.records == []
