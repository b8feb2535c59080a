"""Each camera's codec, applied before the policy is called: what it acts on is what an episode stores.

A density that is recomputed from stored images is then that of the policy's own input. JPEG that a robot sent itself
is stored as it came, where that is the camera's codec; what it decodes to, the policy sees anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pirl_contract import Contract, Observation
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.episodes.image_codecs import ImageCodec, decode_jpeg, encode_jpeg


@dataclass(frozen=True)
class EncodedImage:
    """One image as it will be stored."""

    data: bytes
    codec: ImageCodec


Encoded = Mapping[str, EncodedImage]
"""by camera; those that are stored raw are not in it"""
NOT_ENCODED: Encoded = {}


class CameraCodecs:
    """What is set for each camera; those that are not named are stored raw. Any thread."""

    def __init__(self, codecs: Mapping[str, ImageCodec] | None = None) -> None:
        self._codecs = {name: codec for name, codec in (codecs or {}).items() if codec.name != "raw"}

    @classmethod
    def parse(cls, settings: Sequence[str]) -> CameraCodecs:
        """Parse `CAMERA=CODEC` each. Raises ValueError."""
        codecs = dict[str, ImageCodec]()
        for setting in settings:
            camera, equals, codec = setting.partition("=")
            if not (camera and equals):
                raise ValueError(f"'{setting}' is not CAMERA=CODEC, such as wrist=jpeg")
            if camera in codecs:
                raise ValueError(f"camera '{camera}' has two codecs: give it one")
            codecs[camera] = ImageCodec.parse(codec)
        return cls(codecs)

    def __bool__(self) -> bool:
        """Whether any camera's images are stored otherwise than raw."""
        return bool(self._codecs)

    def check(self, contract: Contract) -> None:
        """Raise ValueError for a codec of a camera that the contract does not have."""
        cameras = [camera.name for camera in contract.cameras]
        for name in self._codecs:
            if name not in cameras:
                known = ", ".join(cameras) or "none"
                raise ValueError(f"there is a codec for camera '{name}', the policy's cameras are: {known}")

    def apply(self, observation: Observation, sent: Mapping[str, pb.Image]) -> tuple[Observation, Encoded]:
        """Return the observation as the policy must see it, and what is stored of its images.

        `sent` are the messages that its images were decoded from.
        """
        images, encoded = dict(observation.images), dict[str, EncodedImage]()
        for name, codec in self._codecs.items():
            if name not in images:
                continue
            if sent[name].encoding == pb.IMAGE_ENCODING_JPEG:
                encoded[name] = EncodedImage(sent[name].data, codec)
                continue
            data = encode_jpeg(images[name], codec.quality)
            images[name] = decode_jpeg(data, *images[name].shape[:2])
            encoded[name] = EncodedImage(data, codec)
        return replace(observation, images=images), encoded
