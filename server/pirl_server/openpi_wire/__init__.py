"""openpi's websocket wire, so that `openpi-client` works against this server unmodified."""
