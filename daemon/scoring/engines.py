"""Which pool scores: the one place that knows every engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.config.model import ScoringConfig
from spheroidd.daemon.scoring.device_pool import DevicePool, named_devices
from spheroidd.daemon.scoring.pool import ScoringPool, WorkerEvent
from spheroidd.daemon.scoring.worker import Worker, WorkerSettings


def scoring_pool(
    scoring: ScoringConfig,
    settings: WorkerSettings,
    catalog: CatalogReader,
    emit: Callable[[WorkerEvent], None],
    devices: Literal["all"] | Sequence[int | str] | None = None,
) -> ScoringPool:
    """The pool that [scoring] names, not started; `devices` are those of [inference], beside this process."""
    if scoring.engine == "ray":
        from spheroidd.daemon.scoring.ray_pool import ClusterSettings, RayPool

        cluster = ClusterSettings(scoring.ray_address, scoring.ray_workers)
        return RayPool(replace(settings, data_dir=images_root(settings.data_dir).absolute()), cluster, catalog, emit)
    if devices is not None:
        return DevicePool(settings, named_devices(devices), emit)
    return Worker(settings, emit)
