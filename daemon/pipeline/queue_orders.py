"""What people ordered of the queue of plates, while a plate is run or between two. Only main calls it."""

import contextlib

from spheroidd.daemon.catalog.plate_queue import PlateQueue
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.pipeline.orders import ArrangeQueue, GoOn, HoldPlate, QueueOrder, QueuePlate, RemovePlate
from spheroidd.protocols.errors import MissingError, RefusedError

GOES_ON = "the next plate starts when this one has ended"


def carry_out(order: QueueOrder, catalog: Catalog) -> str:
    """Do it; what was done, in a sentence. RefusedError or MissingError where it cannot be."""
    queue = PlateQueue(catalog)
    match order:
        case QueuePlate():
            queue.add(order.plate, order.who, order.n_wells)
            return f"plate {order.plate} waits for its turn"
        case ArrangeQueue():
            if not order.plates:
                raise RefusedError("no plate is named", do="name those that are to be the next")
            queue.arrange(order.plates)
            return f"{', '.join(order.plates)} will be run next"
        case HoldPlate():
            queue.hold(order.plate, order.held)
            held = f"plate {order.plate} is held: it is passed over"
            return held if order.held else f"plate {order.plate} is released"
        case RemovePlate():
            queue.remove(order.plate)
            with contextlib.suppress(MissingError):  # a person has removed its folder
                SubmittedPlates(catalog.path.parent).remove(order.plate)
            return f"plate {order.plate} is out of the queue; what was imaged of it stays"
        case GoOn():
            queue.go_on(order.goes_on, "" if order.goes_on else f"stopped by {order.who}")
            return GOES_ON if order.goes_on else "no further plate starts"
    raise RefusedError(f"{type(order).__name__} is no order of the queue", do="see the contract")
