"""openpi's websocket wire, so that `openpi-client` works against this server unmodified."""

from pirl_server.openpi_wire.door import Door, EngineDoor
from pirl_server.openpi_wire.keys import Keys
from pirl_server.openpi_wire.server import OpenpiServer, start_openpi

__all__ = ["Door", "EngineDoor", "Keys", "OpenpiServer", "start_openpi"]
