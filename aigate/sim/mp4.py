"""A real little video without an encoder: H.264 baseline whose every macroblock is raw samples (I_PCM), in an MP4. Any player shows it.

It writes the word SIMULATED, so that nobody takes it for a model's work, over a colour of the seed, and a bar that moves. Pure.
"""

from __future__ import annotations

import struct

FPS = 4
_MB = 16  # a macroblock is 16 × 16
_SHAPES = {"16:9": (7, 4), "9:16": (4, 7), "1:1": (4, 4)}  # macroblocks wide, high
_TIMESCALE = 1000
_IDENTITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_DARK, _LIGHT, _INK, _BAR_PIXELS = 48, 96, 225, 6

# Letters of three by five, a row a digit: 5 is 101.
_FONT = {
    "S": "36216", "I": "72227", "M": "57755", "U": "55557", "L": "44447", "A": "25755", "T": "72222", "E": "74647", "D": "65556",
}  # fmt: skip
_WORD = "SIMULATED"


def make_video(seconds: float, shape: str, seed: int, note: str) -> bytes:
    """An MP4 of about so many seconds; the same for the same arguments. `note` is kept in a box that players skip."""
    wide, high = _SHAPES.get(shape, _SHAPES["16:9"])
    frames = [_frame(wide, high, place, seed) for place in range(max(1, round(seconds * FPS)))]
    sps, pps = _sequence(wide, high), _picture()
    samples = [struct.pack(">I", len(frame)) + frame for frame in frames]
    head = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomavc1mp41") + _box(b"free", note.encode("utf-8", "replace")[:1000])
    index = _moov(wide * _MB, high * _MB, [len(sample) for sample in samples], (sps, pps), first_offset=0)
    index = _moov(wide * _MB, high * _MB, [len(sample) for sample in samples], (sps, pps), first_offset=len(head) + len(index) + 8)
    return head + index + _box(b"mdat", *samples)


def size_of(shape: str) -> tuple[int, int]:
    """Pixels wide and high."""
    wide, high = _SHAPES.get(shape, _SHAPES["16:9"])
    return wide * _MB, high * _MB


def padding(size: int) -> bytes:
    """The head of a box that players skip, for `size` bytes to follow."""
    return struct.pack(">I4s", size + 8, b"free")


# --- pictures -----------------------------------------------------------------------------------------------------------------


def _frame(wide: int, high: int, place: int, seed: int) -> bytes:
    """One coded picture: a slice header, then every macroblock as its samples. No sample is 0, so nothing can look like a start code."""
    luma = _paint(wide * _MB, high * _MB, place)
    blue, red = 64 + (seed * 37) % 128, 64 + (seed * 61) % 128
    chroma = bytes([blue]) * 64 + bytes([red]) * 64
    width = wide * _MB
    slice_bits = "1" + "0001000" + "1" + "0000" + ("010" if place % 2 else "1") + "00" + "1"
    data = bytearray(_bits(slice_bits + "000011010"))  # … and mb_type 25 of the first macroblock; zero bits up to a whole byte
    for row in range(0, high * _MB, _MB):
        for column in range(0, width, _MB):
            if row or column:
                data += b"\x0d\x00"  # mb_type 25 again, aligned
            for line in range(row, row + _MB):
                start = line * width + column
                data += luma[start : start + _MB]
            data += chroma
    return b"\x65" + bytes(data) + b"\x80"


def _paint(width: int, height: int, place: int) -> bytearray:
    luma = bytearray()
    for line in range(height):
        luma += bytes([_DARK + (_LIGHT - _DARK) * line // height]) * width
    scale = max(1, width // (4 * len(_WORD)))
    left, top = (width - (4 * len(_WORD) - 1) * scale) // 2, (height - 5 * scale) // 2
    for at, letter in enumerate(_WORD):
        for row, digit in enumerate(_FONT[letter]):
            for column in range(3):
                if int(digit) >> (2 - column) & 1:
                    start = left + (4 * at + column) * scale
                    for line in range(scale):
                        offset = (top + row * scale + line) * width + start
                        luma[offset : offset + scale] = bytes([_INK]) * scale
    bar = place * _BAR_PIXELS % (width - _BAR_PIXELS)
    for line in range(height - 4, height):
        luma[line * width + bar : line * width + bar + _BAR_PIXELS] = bytes([_INK]) * _BAR_PIXELS
    return luma


def _sequence(wide: int, high: int) -> bytes:
    """Sequence parameters: baseline, every picture a key picture, shown in the order it is stored."""
    bits = "1" + "1" + "011" + "1" + "0" + _golomb(wide - 1) + _golomb(high - 1) + "1" + "0" + "0" + "0" + "1"
    return b"\x67" + bytes([66, 0xC0, 30]) + _bits(bits)


def _picture() -> bytes:
    return b"\x68" + _bits("1" + "1" + "0" + "0" + "1" + "1" + "1" + "0" + "00" + "1" + "1" + "1" + "0" + "0" + "0" + "1")


def _golomb(value: int) -> str:
    digits = bin(value + 1)[2:]
    return "0" * (len(digits) - 1) + digits


def _bits(bits: str) -> bytes:
    whole = bits + "0" * (-len(bits) % 8)
    return int(whole, 2).to_bytes(len(whole) // 8, "big")


# --- boxes --------------------------------------------------------------------------------------------------------------------


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _full(kind: bytes, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _moov(width: int, height: int, sizes: list[int], parameters: tuple[bytes, bytes], *, first_offset: int) -> bytes:
    count, delta = len(sizes), _TIMESCALE // FPS
    duration = count * delta
    sps, pps = parameters
    avcc = bytes([1, 66, 0xC0, 30, 0xFF, 0xE1]) + struct.pack(">H", len(sps)) + sps + b"\x01" + struct.pack(">H", len(pps)) + pps
    entry = _box(
        b"avc1", bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HHIII", width, height, 0x480000, 0x480000, 0),
        struct.pack(">H", 1), bytes(32), struct.pack(">Hh", 24, -1), _box(b"avcC", avcc),
    )  # fmt: skip
    stbl = _box(
        b"stbl",
        _full(b"stsd", 0, struct.pack(">I", 1), entry),
        _full(b"stts", 0, struct.pack(">III", 1, count, delta)),
        _full(b"stsc", 0, struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", 0, struct.pack(">II", 0, count), struct.pack(f">{count}I", *sizes)),
        _full(b"stco", 0, struct.pack(">II", 1, first_offset)),
    )
    minf = _box(b"minf", _full(b"vmhd", 1, bytes(8)), _box(b"dinf", _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1))), stbl)
    mdhd = _full(b"mdhd", 0, struct.pack(">IIIIHH", 0, 0, _TIMESCALE, duration, 0x55C4, 0))
    mdia = _box(b"mdia", mdhd, _full(b"hdlr", 0, bytes(4), b"vide", bytes(12), b"simulated\x00"), minf)
    tkhd = _full(b"tkhd", 3, struct.pack(">IIIII", 0, 0, 1, 0, duration), bytes(16), _IDENTITY, struct.pack(">II", width << 16, height << 16))
    mvhd = _full(b"mvhd", 0, struct.pack(">IIIIIH", 0, 0, _TIMESCALE, duration, 0x10000, 0x100), bytes(10), _IDENTITY, bytes(24), struct.pack(">I", 2))
    return _box(b"moov", mvhd, _box(b"trak", tkhd, mdia))
