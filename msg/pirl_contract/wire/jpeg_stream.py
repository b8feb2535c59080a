"""Whether a baseline JPEG holds all of its image: decoders fill what is lost with grey or with the wrong blocks.

Webcams lose bytes, with and without the end mark. The Huffman codes are followed to the end without computing a pixel
(ITU-T T.81, annex F.2.2): blocks must end where they may, DC values must stay in range, and the image must end where
the data ends. What is lost within one block and leaves valid codes can't be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS_PER_BYTE = 256
"""a code of one bit for each part of each block, and nothing else: no encoder comes closer than to two thirds of it"""
SURPLUS_BYTES = 4
"""behind the last block: some webcams write a few"""
LONGEST_MCU = 4096
"""bytes: ten blocks of 64 coefficients of 26 bits take half of it"""
MAX_SEGMENTS = 4096
"""of one file; encoders make a few hundred at most"""
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_QUANTISATION, _HUFFMAN, _RESTART, _SCAN, _END = 0xDB, 0xC4, 0xDD, 0xDA, 0xD9
_MARK = re.compile(rb"\xff[^\x00\xff]")
_NO_RESTART = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_EOB = 1 << 16
_LAST = 63
"""index of a block's last coefficient"""


@dataclass(frozen=True)
class JpegHeader:
    """What precedes the image data."""

    height: int
    width: int
    components: tuple[tuple[int, int, int], ...]
    """horizontal and vertical sampling, and the quantisation step of DC"""
    tables: tuple[tuple[bytes, bytes], ...]
    """Huffman tables of DC and AC for each component, as in the file; empty: the standard ones"""
    restart: int
    """MCUs between two restart marks; 0: there are none"""
    scan: bytes
    """image data with its restart marks"""

    @property
    def mcu(self) -> tuple[int, int]:
        """Height and width in pixels of what is coded together."""
        if len(self.components) == 1:
            return 8, 8
        return 8 * max(part[1] for part in self.components), 8 * max(part[0] for part in self.components)


def read_header(data: bytes) -> JpegHeader:
    """Parse the segments. Raises ValueError for a file that is no complete 8-bit baseline JPEG, grey or of colours."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file")
    steps, huffman, frame, restart = dict[int, int](), dict[int, bytes](), b"", 0
    for marker, body, at in _segments(data):
        if marker in _FRAMES:
            frame = _frame(marker, body, frame)
        elif marker == _QUANTISATION:
            steps |= _dc_steps(body)
        elif marker == _HUFFMAN:
            huffman |= _huffman(body)
        elif marker == _RESTART and len(body) == 2:
            restart = int.from_bytes(body, "big")
        elif marker == _SCAN:
            return _header(frame, body, steps, huffman, restart, _scan(data, at))
    raise ValueError("the JPEG file is damaged: no image in it")


def check_whole(header: JpegHeader, standard: Sequence[bytes]) -> None:
    """Follow the codes of the whole image. Raises ValueError that says after how much of it the data is damaged.

    `standard` are the four standard tables in the order of `standard_tables`: webcams leave them out.
    """
    blocks, mcus = _blocks(header, standard), _mcus(header)
    limits = [1024 // step + 2 for *_, step in header.components]
    parts = _MARK.split(header.scan)
    each = header.restart or mcus
    marks = [mark[1] for mark in _MARK.findall(header.scan)]
    if len(parts) != -(-mcus // each) or marks != [0xD0 + i % 8 for i in range(len(marks))]:
        raise ValueError(f"the JPEG file lost data: {len(parts)} parts between restart marks, not {-(-mcus // each)}")
    for index, part in enumerate(parts):
        done = index * each
        fault, at = _follow(part.replace(b"\xff\x00", b"\xff"), blocks, min(each, mcus - done), limits)
        if fault:
            share = round(100 * (done + at) / mcus)
            raise ValueError(f"the JPEG file lost data: {fault} after {share} of 100 parts of the image")


def standard_tables(encoded: bytes) -> tuple[bytes, ...]:
    """Luminance DC and AC, chrominance DC and AC, out of a colour JPEG that was written with the standard tables."""
    header = read_header(encoded)
    return (*header.tables[0], *header.tables[1])


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, body and where the next segment starts."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill
            at += 1
            continue
        body, at = data[at + 4 : at + 2 + length], at + 2 + max(length, 2)
        yield marker, body, at


def _frame(marker: int, body: bytes, before: bytes) -> bytes:
    if before or marker not in (0xC0, 0xC1) or len(body) < 6:
        raise ValueError("not a baseline JPEG: switch 'progressive' off where it is made")
    if body[0] != 8:
        raise ValueError(f"the JPEG file has {body[0]} bits per channel, 8 are read")
    if body[5] not in (1, 3) or len(body) != 6 + 3 * body[5]:
        raise ValueError(f"the JPEG file has {body[5]} channels (4 are CMYK): grey or three of colour are read")
    return body


def _dc_steps(body: bytes) -> dict[int, int]:
    """Quantisation step of DC by table."""
    steps, at = dict[int, int](), 0
    while at < len(body):
        wide = body[at] >> 4
        steps[body[at] & 15] = int.from_bytes(body[at + 1 : at + 2 + wide], "big")
        at += 65 + 64 * wide
    return steps


def _huffman(body: bytes) -> dict[int, bytes]:
    """Counts and symbols by class and table, as DHT has them."""
    tables, at = dict[int, bytes](), 0
    while at + 17 <= len(body):
        size = 17 + sum(body[at + 1 : at + 17])
        tables[body[at]] = body[at + 1 : at + size]
        at += size
    return tables


def _scan(data: bytes, at: int) -> bytes:
    """Image data up to the end mark, which must be the only mark but for restarts."""
    if (mark := _NO_RESTART.search(data, at)) is None:
        raise ValueError("the JPEG file is truncated: no end mark")
    if (kind := mark[0][1]) != _END or data[mark.end() :].strip(b"\0"):
        raise ValueError(f"the JPEG file is damaged or of several scans: mark {kind:02x} within its image")
    return data[at : mark.start()].rstrip(b"\xff")


def _header(
    frame: bytes, scan: bytes, steps: dict[int, int], huffman: dict[int, bytes], restart: int, data: bytes
) -> JpegHeader:
    if not frame:
        raise ValueError("the JPEG file is damaged: no size before its image")
    count = frame[5]
    parts = [frame[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    if len(scan) != 4 + 2 * count or [scan[1 + 2 * i] for i in range(count)] != [part[0] for part in parts]:
        raise ValueError("the JPEG file has one scan for each channel: one scan for all of them is read")
    if not all(1 <= part[1] >> 4 <= 4 and 1 <= part[1] & 15 <= 4 and steps.get(part[2]) for part in parts):
        raise ValueError("the JPEG file is damaged: sampling or quantisation is missing")
    picked = [(scan[2 + 2 * i] >> 4, 16 | (scan[2 + 2 * i] & 15)) for i in range(count)]
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if not height or not width:
        raise ValueError(f"the JPEG file is {height}x{width}: no size before its image")
    if height * width > MOST_PIXELS_PER_BYTE * len(data):
        raise ValueError(f"the JPEG file lost data: {len(data)} bytes are too few for {height}x{width} pixels")
    return JpegHeader(
        height=height,
        width=width,
        components=tuple((part[1] >> 4, part[1] & 15, steps[part[2]]) for part in parts),
        tables=tuple((huffman.get(dc, b""), huffman.get(ac, b"")) for dc, ac in picked),
        restart=restart,
        scan=data,
    )


def _mcus(header: JpegHeader) -> int:
    down, across = header.mcu
    return -(-header.width // across) * -(-header.height // down)


Block = tuple[int, list[int], list[int], list[int]]
"""component, and its tables: DC, the first AC symbol, as many AC symbols as lie within 16 bits"""


def _blocks(header: JpegHeader, standard: Sequence[bytes]) -> list[Block]:
    """The blocks of an MCU in their order."""
    blocks: list[Block] = []
    for index, ((across, down, _), (dc, ac)) in enumerate(zip(header.components, header.tables)):
        usual = 2 * min(index, 1)
        first, several = _ac_tables(ac or standard[usual + 1])
        block = (index, _dc_table(dc or standard[usual]), first, several)
        blocks += [block] * (1 if len(header.components) == 1 else across * down)
    return blocks


@lru_cache(maxsize=32)
def _dc_table(table: bytes) -> list[int]:
    """Code's length and category (packed as length << 8 | category) by the next 16 bits; 0: no such code."""
    lengths, symbols = _expanded(table)
    valid = (lengths > 0) & (symbols <= 11)
    return np.where(valid, lengths << 8 | symbols, 0).tolist()  # type: ignore[no-any-return]


@lru_cache(maxsize=32)
def _ac_tables(table: bytes) -> tuple[list[int], list[int]]:
    """Bits, coefficients << 8 and end of block by the next 16 bits: of the first symbol, and of all that fit in."""
    lengths, symbols = _expanded(table)
    size, run = symbols & 15, symbols >> 4
    bits = lengths + size
    count = np.where(size > 0, run + 1, np.where(run == 15, 16, 0))
    end = (symbols == 0) & (lengths > 0)
    known = (lengths > 0) & ((size > 0) | (run == 15) | (symbols == 0)) & (size <= 10)
    bits, count = np.where(known, bits, 0), np.where(known, count, 0)
    windows = np.arange(1 << 16)
    total, gained, over, more = bits.copy(), count.copy(), end.copy(), known & ~end
    for _ in range(8):
        rest = (windows << np.minimum(total, 16)) & 0xFFFF
        more &= (total < 16) & known[rest] & (lengths[rest] <= 16 - total) & (gained + count[rest] < _LAST)
        total, gained = total + np.where(more, bits[rest], 0), gained + np.where(more, count[rest], 0)
        over |= more & end[rest]
        more &= ~end[rest]
    one = np.where(known, bits | count << 8 | end.astype(int) << 16, 0)
    several = np.where(known, total | gained << 8 | over.astype(int) << 16, 0)
    return one.tolist(), several.tolist()


def _expanded(table: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Length and symbol of the code that the next 16 bits begin with, both [65536]; length 0: of none."""
    lengths, symbols = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    code, at = 0, 16
    for length in range(1, 17):
        for symbol in table[at : at + table[length - 1]]:
            start = code << (16 - length)
            place = slice(start, start + (1 << (16 - length)))
            lengths[place], symbols[place] = length, symbol
            code += 1
        at += table[length - 1]
        code <<= 1
    return lengths, symbols


def _follow(data: bytes, blocks: Sequence[Block], mcus: int, limits: Sequence[int]) -> tuple[str, int]:
    """Follow the codes of so many MCUs; return what is wrong, '' for nothing, and in which of them."""
    padded = np.frombuffer(data + bytes(LONGEST_MCU), np.uint8).astype(np.int64)
    words = (padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]).tolist()
    end, at, dc = 8 * len(data), 0, [0] * len(limits)
    for mcu in range(mcus):
        for component, dc_table, first, several in blocks:
            entry = dc_table[(words[at >> 3] >> (16 - (at & 7))) & 0xFFFF]
            if not entry:
                return "an unknown code", mcu
            at += entry >> 8
            if category := entry & 255:
                value = (words[at >> 3] >> (32 - (at & 7) - category)) & ((1 << category) - 1)
                at += category
                dc[component] += value if value >> (category - 1) else value - (1 << category) + 1
                if not -limits[component] <= dc[component] <= limits[component]:
                    return "a brightness out of range", mcu
            k = 0
            while True:
                window = (words[at >> 3] >> (16 - (at & 7))) & 0xFFFF
                entry = several[window]
                if k + (entry >> 8 & 255) >= _LAST:  # the block may end within
                    entry = first[window]
                if not entry:
                    return "an unknown code", mcu
                at += entry & 255
                k += entry >> 8 & 255
                if entry & _EOB or k == _LAST:
                    break
                if k > _LAST:
                    return "a block too long", mcu
            if at > end:
                return "no more data", mcu
    return ("data left over", mcus) if end - at >= 8 * (SURPLUS_BYTES + 1) else ("", mcus)
