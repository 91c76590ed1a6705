"""What runs on a node of a cluster: one process that holds the model and scores the stacks that it is given."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from spheroidd.daemon.scoring.messages import ScoreJob, StoredLedger
from spheroidd.daemon.scoring.pool import WorkerBroken, WorkerEvent, WorkerReady
from spheroidd.daemon.scoring.worker import WorkerSettings, outcome
from spheroidd.protocols.errors import ConfigError, SpheroiddError

if TYPE_CHECKING:
    from spheroidd.protocols.ports import Segmenter


class RayWorker:
    """An actor. It is made at once; `load` takes its time, so that whoever asks `where` it is need not wait for it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._segmenter: Segmenter | None = None

    def where(self) -> str:
        """The node's number in the cluster."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def load(self) -> tuple[str, WorkerReady | WorkerBroken]:
        """Load the model and compile what a stack needs; where it is, and how that went."""
        from spheroidd.acquisition.store.shard import lock_without_a_name
        from spheroidd.daemon.scoring.score_stack import warm_up
        from spheroidd.inference.segmentation.choice import open_segmenter

        given = self._settings
        lock_without_a_name()
        try:
            _check_folder(given.data_dir)
            segmenter = open_segmenter(given.model, given.device, given.threads, given.precision)
            warm_up(segmenter, given.plan)
        except SpheroiddError as error:
            return self.where(), WorkerBroken(error)
        self._segmenter = segmenter
        return self.where(), WorkerReady(os.getpid(), segmenter.sha256)

    def score(self, job: ScoreJob, ledger: StoredLedger) -> WorkerEvent:
        """Score one stored stack; what went wrong comes back as words."""
        if self._segmenter is None:
            raise RuntimeError("the model is not loaded")
        return outcome(job, self._settings.data_dir, ledger, self._segmenter)


def _check_folder(images: Path) -> None:
    if not images.is_dir():
        what = "the folder of the images is not to be seen on this node"
        do = "mount it there under the same path, or name one that all nodes share in [data] images"
        raise ConfigError(what, where=f"{platform.node()}: {images}", do=do)
