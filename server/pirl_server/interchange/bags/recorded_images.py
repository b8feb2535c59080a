"""Images of a recording at given times: the newest one of each camera at or before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from pirl_contract import Contract
from pirl_server.interchange.bags.image_messages import rgb
from pirl_server.interchange.bags.resampled import newest
from pirl_server.interchange.bags.streams import Streams, messages
from pirl_server.interchange.episodes.image_rows import empty_rows


def images_at(
    reader: AnyReader, streams: Streams, contract: Contract, times: Sequence[int], where: str
) -> dict[str, NDArray[np.uint8]]:
    """Return images by camera [number of times, height, width, 3]; each message is decoded once.

    Raises ValueError for an image that can't be decoded or has another size than the contract's.
    """
    found = {}
    for camera in contract.cameras:
        topic, stamps = streams.images[camera.name]
        if not len(stamps):
            raise ValueError(f"camera '{camera.name}': no message of '{topic}' was recorded")
        order = np.argsort(stamps, kind="stable")
        wanted = order[newest(stamps[order], np.asarray(times, np.int64))]
        pixels = empty_rows(len(times), camera.height, camera.width)
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(wanted.tolist()):
            rows.setdefault(number, []).append(row)
        seen = -1
        connections = [each for each in reader.connections if each.topic == topic]
        for number, (connection, _, raw) in enumerate(messages(reader, connections, where)):
            if number in rows:
                image = _image(reader.deserialize(raw, connection.msgtype), camera.name, topic)
                if image.shape[:2] != (camera.height, camera.width):
                    raise ValueError(
                        f"camera '{camera.name}': '{topic}' has images of {image.shape[1]}x{image.shape[0]}, the"
                        f" contract says {camera.width}x{camera.height}: images are not resized; correct the contract"
                    )
                pixels[rows[number]] = image
            seen = number
        if seen != len(stamps) - 1:
            raise ValueError(f"{where}: '{topic}' has {seen + 1} messages now, and had {len(stamps)}: it was changed")
        found[camera.name] = pixels
    return found


def _image(message: Any, camera: str, topic: str) -> NDArray[np.uint8]:
    try:
        return rgb(message)
    except ValueError as error:
        raise ValueError(f"camera '{camera}': '{topic}': {error}") from None
