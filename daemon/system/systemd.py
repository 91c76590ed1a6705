"""What systemd (or any service manager that speaks its protocol) is told: ready, alive, stopping.

One datagram to the socket that NOTIFY_SOCKET names, as in sd_notify(3). Without that variable nothing is done, so
nothing here knows which system it runs on.
"""

import os
import socket

READY, WATCHDOG, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


def notify(*lines: str) -> bool:
    """Tell the service manager; whether there is one that took it.

    A manager that does not listen is no reason to stop imaging: it restarts a daemon it hears nothing of.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name in the abstract name space
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as door:
            door.setblocking(False)  # a full socket must not hold main up
            door.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True
