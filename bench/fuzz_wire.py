"""Does any message make the wire crash, or allocate more than it may?

    python bench/fuzz_wire.py [--messages 1000000] [--seed 0] [--quick] [--json]

Valid requests and replies of every kind are damaged, as bytes and field by field, and decoded as the server does it and
as the client does. Anything but a DecodeError or a ValueError ends the run with the seed and the bytes; so does a
message whose decoding allocates more than its bound: what it carries a few times over, and the images that the
contract allows.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message

from pirl_contract import (
    ActionChunk,
    Alteration,
    Camera,
    Contract,
    ControlSource,
    Field,
    Observation,
    PreviousChunk,
    StepOutcome,
)
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec, image_codec

SIDE = 16
STATE = tuple(Field(name, "rad") for name in ("q0", "q1", "q2"))
CONTRACT = Contract("fuzzed", (Camera("a", SIDE, SIDE), Camera("b", SIDE, SIDE)), STATE, (), 10.0)
PICTURES = 2 * 3 * SIDE * SIDE
FIXED_BYTES = 256 * 1024
"""for what any message may cost: messages in Python, the decoders' own tables"""
PER_BYTE = 64
"""a byte of a message may become a Python object"""
EXTREMES = (0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)

Decode = Callable[[bytes], None]


def decode(data: bytes) -> None:
    """What the server does with a request, or the client with a reply: the first byte says which."""
    if data[:1] == b"r":
        _decode_reply(pb.SessionReply.FromString(data[1:]))
    else:
        _decode_request(pb.SessionRequest.FromString(data[1:]))


def _decode_reply(reply: Any) -> None:
    if reply.HasField("infer"):
        codec.chunk_from_proto(reply.infer)
    elif reply.HasField("get_info"):
        Contract.from_json(reply.get_info.contract_json)


def _decode_request(request: Any) -> None:
    if request.HasField("infer"):
        codec.decode_infer(request.infer, CONTRACT)
    elif request.HasField("start_episode"):
        Contract.from_json(request.start_episode.contract_json)


def bound(data: bytes) -> int:
    """Most that decoding may allocate at once."""
    return FIXED_BYTES + PER_BYTE * len(data) + 2 * PICTURES


def valid_messages() -> list[tuple[bytes, Any]]:
    """One of each kind, with the byte that says who reads it."""
    image = np.arange(3 * SIDE * SIDE, dtype=np.uint32).astype(np.uint8).reshape(SIDE, SIDE, 3)
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    outcome = StepOutcome("c", 1, two, three, 0.5, Alteration(3), ControlSource(1), 9)
    start = pb.StartEpisodeRequest(contract_json=CONTRACT.to_json())
    chunk = ActionChunk(np.ones((5, 2), np.float32), 0.1, "c", "v", 1, 3, timings_ms={"total": 1.0})
    found: list[tuple[bytes, Any]] = [(b"r", pb.SessionReply(id=3, infer=codec.chunk_to_proto(chunk, 4)))]
    found.append((b"r", pb.SessionReply(id=4, get_info=pb.GetInfoReply(contract_json=CONTRACT.to_json()))))
    found.append((b"q", pb.SessionRequest(id=5, start_episode=start)))
    for encoding in (pb.IMAGE_ENCODING_RGB8, pb.IMAGE_ENCODING_JPEG, pb.IMAGE_ENCODING_PNG):
        message = pb.SessionRequest(id=6)
        infer = message.infer
        seen = Observation({"a": image, "b": image}, three, "x")
        infer.observation.CopyFrom(codec.observation_to_proto(seen))
        for picture in infer.observation.images.values():
            picture.encoding = encoding
            if encoding != pb.IMAGE_ENCODING_RGB8:
                picture.data = image_codec.encode(image, "jpeg" if encoding == pb.IMAGE_ENCODING_JPEG else "png")
        infer.outcomes.extend(codec.outcomes_to_proto([outcome, outcome]))
        infer.continuation.CopyFrom(codec.continuation_to_proto(PreviousChunk(np.ones((4, 2), np.float32), 2)))
        found.append((b"q", message))
    return found


def damaged(draw: random.Random, kinds: list[tuple[bytes, Any]]) -> bytes:
    """A valid message with one to four faults; now and then nothing but noise."""
    reader, message = draw.choice(kinds)
    if draw.random() < 0.05:
        return reader + draw.randbytes(draw.randrange(200))
    if draw.random() < 0.5:
        message = type(message).FromString(message.SerializeToString())
        for _ in range(draw.randrange(1, 4)):
            _damage_field(draw, message)
        return reader + bytes(message.SerializeToString())
    data = bytearray(message.SerializeToString())
    for _ in range(draw.randrange(1, 5)):
        _damage_bytes(draw, data)
    return reader + bytes(data)


def _damage_bytes(draw: random.Random, data: bytearray) -> None:
    at, kind = draw.randrange(len(data) + 1), draw.randrange(5)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[at : at + draw.randrange(1, 40)]
    elif kind == 2:
        data[at:at] = draw.randbytes(draw.randrange(1, 20))
    elif kind == 3:
        data[at : at + 2] = struct.pack(">H", draw.choice(EXTREMES) & 0xFFFF)
    else:
        data[at:at] = data[: draw.randrange(len(data) + 1)][-60:]


def _damage_field(draw: random.Random, message: Message) -> None:
    """Walk down to some field and set it to something it should not be."""
    fields = [field for field, _ in message.ListFields()]
    if not fields:
        return
    field = draw.choice(fields)
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = draw.choice(list(value))
        if isinstance(value[entry], Message):
            _damage_field(draw, value[entry])
        return
    if field.label == field.LABEL_REPEATED:
        _damage_list(draw, value)
    elif isinstance(value, Message):
        _damage_field(draw, value)
    elif isinstance(value, bytes):
        data = bytearray(value)
        _damage_bytes(draw, data)
        setattr(message, field.name, bytes(data))
    elif isinstance(value, str):
        setattr(
            message, field.name, value[: draw.randrange(len(value) + 1)] + draw.choice(["", "é", "[" * 3000, "9" * 400])
        )
    elif isinstance(value, float):
        setattr(message, field.name, draw.choice([float("nan"), float("inf"), -1e308, 0.0]))
    else:
        _set_number(draw, message, field.name)


def _damage_list(draw: random.Random, value: Any) -> None:
    if len(value) and isinstance(value[0], Message):
        if draw.random() < 0.2:
            value.extend([value[0]] * draw.randrange(1, 50))
        else:
            _damage_field(draw, draw.choice(value))
    elif len(value) and isinstance(value[0], int):
        value[draw.randrange(len(value))] = draw.choice(EXTREMES) * draw.choice((1, 1, -1))
    elif len(value):
        value[draw.randrange(len(value))] = draw.choice([float("nan"), 1e30, 0.0])


def _set_number(draw: random.Random, message: Message, name: str) -> None:
    try:
        setattr(message, name, draw.choice(EXTREMES) * draw.choice((1, 1, -1)))
    except ValueError:  # does not fit the field's type
        setattr(message, name, 1)


def fuzz(messages: int, seed: int, decoder: Decode = decode) -> dict[str, float]:
    """Decode that many. Raises AssertionError, with seed, number and bytes, at the first that misbehaves."""
    draw, kinds, ends = random.Random(seed), valid_messages(), Counter[str]()
    for reader, message in kinds:
        decoder(reader + message.SerializeToString())  # undamaged they must pass, and the decoders are warm then
    worst, started = 0.0, time.perf_counter()
    resident_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        for number in range(messages):
            data = damaged(draw, kinds)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            ends[_end(decoder, data, f"seed {seed}, message {number}")] += 1
            allocated = tracemalloc.get_traced_memory()[1] - before
            worst = max(worst, allocated / bound(data))
            assert allocated <= bound(data), f"seed {seed}, message {number} allocated {allocated}: {data.hex()}"
    finally:
        tracemalloc.stop()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident_kib
    return {
        "messages": messages,
        "refused": ends["refused"],
        "no_message": ends["no message"],
        "decoded": ends["decoded"],
        "worst_allocation_of_bound": round(worst, 3),
        "grown_mib": round(grown_kib / 1024, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _end(decoder: Decode, data: bytes, which: str) -> str:
    try:
        decoder(data)
    except DecodeError:
        return "no message"
    except ValueError:
        return "refused"
    except BaseException as error:
        raise AssertionError(f"{which} ended in {error!r}: {data.hex()}") from error
    return "decoded"


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20 thousand messages")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    figures = fuzz(20_000 if options.quick else options.messages, options.seed)
    print(json.dumps(figures) if options.json else "\n".join(f"{name:28}{value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
