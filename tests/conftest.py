"""How the whole suite is run: its threads, its order, and the one plate that many tests compare with."""

import contextlib
import gc
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from filelock import FileLock

from tests import built_commands
from tests.places import NURSERY_VARIABLE, REAL_DATA, ROOT, WARM_PYTHON_VARIABLE
from tests.warm_spawn import spawning_warm

# Before anything loads numpy or torch, and for every process that a test starts: xdist has a worker for each core, and
# pools of threads beside them would only wait for each other, spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A daemon that a test starts finds its modules compiled by the one before, and each worker finds the tests as pytest
# rewrote them: that takes as long as importing them, with all that they import.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Until the tests are collected nothing but modules is made; see `pytest_collection_finish`.
gc.disable()
built_commands.keep()
# No test may change what a person's own commands take for the last run.
os.environ["SPHEROIDD_STATE"] = ""

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# xdist hands out whole files, for their tests share what is costly. Of these each test starts its own processes.
SPREAD = ("tests/faults/test_plate_killed.py", "tests/faults/test_plate_faults.py", "tests/test_documentation.py")

# Half of the suite waits for other processes: with three workers a core, one of them always has something to compute.
WORKERS_A_CORE = 3
BYTES_A_WORKER = 2 << 30  # with torch and the daemons that it starts

# Thousands of small files, many made durable: on a disk, the tests of stores take half as much of a processor again.
IN_MEMORY = Path("/dev/shm")
BYTES_OF_FILES = 4 << 30  # several times what tests have written and not yet removed

# The files that take longest must not be the last to start, with every other core idle. From their places on, tests of
# SPREAD stand singly between files: most of them wait, and beside them something must compute.
LONGEST_FIRST = (
    "faults/test_plate_killed.py",
    "daemon/web/test_page_browser.py",
    "faults/test_plate_faults.py",
    "test_documentation.py",
    "inference/training/test_trainer.py",
    "acquisition/sources/micromanager/test_micromanager_faults.py",
    "daemon/verification/test_verify.py",
    "daemon/service/test_service.py",
    "daemon/launch/test_run.py",
    "acquisition/focus/test_autofocus.py",
    "daemon/report/test_report.py",
    "daemon/evaluation/test_evaluation.py",
    "daemon/backup/test_backup.py",
    "inference/dose_response/test_fit.py",
    "inference/reconstruction/test_reconstruction.py",
    "inference/reconstruction/test_estimation.py",
    "daemon/service/test_service_run.py",
    "inference/segmentation/test_segmenter.py",
    "bench/test_study_benches.py",
    "inference/segmentation/test_device_path.py",
    "bench/test_gpu_check.py",
    "sim_emulator/test_raw_faults.py",
    "daemon/analysis/test_plate_quality.py",
    "inference/viability/test_regressor.py",
    "inference/training/test_search.py",
    "daemon/pipeline/test_reorder.py",
    "acquisition/sources/leica/test_leica_source.py",
    "daemon/training/test_training.py",
    "test_warm_start.py",
    "inference/quality/test_stack_quality.py",
    "acquisition/sources/test_restream.py",
    "faults/test_backup_of_a_run.py",
    "inference/dose_response/test_eight_doses.py",
    "daemon/scoring/test_raw_plate.py",
    "daemon/web/test_openapi.py",
    "daemon/catalog/test_kept_standings.py",
    "inference/network/test_model_packages.py",
    "acquisition/images/test_hostile_files.py",
    "test_plugin.py",
    "cases/test_cases.py",
    "daemon/scoring/test_exclusions.py",
    "daemon/reconstruction/test_sim_commands.py",
    "acquisition/sources/micromanager/test_java_bridge.py",
    "daemon/verification/test_scrub.py",
    "acquisition/sources/micromanager/test_micromanager.py",
    "acquisition/sources/watched_folder/test_watch_folder.py",
    "daemon/scoring/test_moving_limits.py",
    "daemon/web/test_words.py",
    "daemon/emulation/test_recording_faults.py",
    "daemon/launch/test_sweep.py",
    "acquisition/store/test_zarr_store.py",
    "inference/preprocessing/test_intensity.py",
    "daemon/system/test_endings.py",
    "daemon/emulation/test_leica_run.py",
    "daemon/scoring/test_device_pool.py",
    "daemon/launch/test_open_catalog.py",
    "daemon/service/test_queue_run.py",
    "daemon/web/test_rest.py",
    "daemon/system/test_service_unit.py",
    "inference/network/test_unet.py",
    "faults/test_damaged_stacks.py",
    "daemon/service/test_doors.py",
    "inference/dose_response/test_patients.py",
    "daemon/web/test_connection_limits.py",
    "daemon/scoring/test_trust.py",
)

_open_until_the_end = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an environment that is older than the tree, and keep xdist from its own order of files.

    That order is by the number of tests, and the longest files have few.
    """
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    # A root that is not installed yet is not found, or is a mere namespace.
    if missing := [root for root in roots if (spec := find_spec(root)) is None or spec.origin is None]:
        again = "python -m pip install --no-deps -e ."
        pytest.exit(f"{', '.join(missing)}: newer than this environment; install again: {again}", returncode=4)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= BYTES_OF_FILES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))  # pytest's own name for where `tmp_path` lies
    if not hasattr(config, "workerinput"):
        os.environ[NURSERY_VARIABLE] = tempfile.mkdtemp(prefix="spheroidd-nursery-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove where the workers, which have ended, found their nursery, and end what forked them."""
    if not hasattr(config, "workerinput"):
        _open_until_the_end.close()
        folder = Path(os.environ.pop(NURSERY_VARIABLE))
        over = folder.rename(f"{folder}-over")  # at once: the nursery, which ends now too, looks whether it is there
        shutil.rmtree(over, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Start workers of the whole suite warm; lines that are counted are those of modules that each imports anew."""
    whole = config.args_source is config.ArgsSource.TESTPATHS
    if not whole or getattr(config.option, "cov_source", None) or not sys.platform.startswith("linux"):
        return
    from tests.warm_start import begin
    from tests.warm_workers import door_keeper

    command = _open_until_the_end.enter_context(door_keeper(*config.invocation_params.args))
    os.environ[WARM_PYTHON_VARIABLE] = command
    begin()
    for spec in specs:
        spec.python = command


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` means."""
    return max(1, min(WORKERS_A_CORE * (os.cpu_count() or 1), psutil.virtual_memory().available // BYTES_A_WORKER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling | None":
    """Hand out files whole but for those of SPREAD, whose tests go to whoever is free."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file in SPREAD else file

    return ByFile(config, log)


def pytest_collection(session: pytest.Session) -> bool | None:
    """Collect nothing again in a worker that began with the tests collected."""
    from tests.warm_workers import taken_over

    return taken_over(session) or None


def pytest_collection_finish() -> None:
    """Leave what was collected out of every later search for garbage.

    It lives to the end, and it is a million objects: to look at them again and again was a fifth of the tests' time.
    """
    gc.freeze()
    gc.enable()


def pytest_report_header() -> str:
    """Say where the real data are, or that their tests are skipped."""
    return (
        f"real data: {REAL_DATA}" if REAL_DATA.is_dir() else f"real data: NOT at {REAL_DATA}; their tests are skipped"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else stays where it is."""
    folder = Path(__file__).parent
    rank = {folder / name: place for place, name in enumerate(LONGEST_FIRST)}
    spread = {ROOT / name: count() for name in SPREAD}
    places = [rank.get(item.path, len(rank)) + next(spread.get(item.path, repeat(0))) for item in items]
    items[:] = [items[n] for n in sorted(range(len(items)), key=places.__getitem__)]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of the default plate, run once to its end with nothing going wrong; to be read only.

    The first worker that needs it runs it, for all.
    """
    from tests.faults.plate_runs import run, write_config

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    config, finished = folder / "undisturbed" / "plate.toml", folder / "undisturbed" / "finished"
    with FileLock(folder / "undisturbed.lock"):
        if not finished.exists():
            write_config(config.parent)
            assert run(config) == 0, config.with_suffix(".log").read_text()
            finished.touch()
    return config


@pytest.fixture(scope="session")
def warm_program() -> Iterator[tuple[str]]:
    """`spheroidd` as a program that begins warm, for what starts it by itself: one command after the other."""
    from tests.warm_start import on_the_path

    with on_the_path() as folder:
        found = shutil.which("spheroidd", path=str(folder))
        assert found is not None
        yield (found,)


@pytest.fixture(scope="session")
def warm_cores() -> Iterator[None]:
    """Micro-Manager's cores, which this process spawns, begin with pycromanager and their camera's modules loaded."""
    if find_spec("pycromanager") is None:
        yield
        return
    of_cores = "acquisition.sources.micromanager"
    camera = "spheroidd.daemon.emulation.emulated_camera"
    with spawning_warm(f"spheroidd.{of_cores}.session", "pycromanager", f"tests.{of_cores}.faults", camera):
        yield
