"""A real little 3D model: binary glTF 2.0 of a spindle whose sides and colour come of the seed. Says in its JSON that it is simulated. Pure."""

from __future__ import annotations

import json
import math
import struct

_FLOAT, _USHORT = 5126, 5123
_ARRAY, _ELEMENTS = 34962, 34963


def make_model(seed: int, note: str) -> bytes:
    """A GLB; the same for the same arguments."""
    sides = 3 + seed % 6
    ring = [(math.cos(2 * math.pi * at / sides), 0.0, math.sin(2 * math.pi * at / sides)) for at in range(sides)]
    corners = [(0.0, 1.5, 0.0), *ring, (0.0, -1.5, 0.0)]
    top, bottom = 0, len(corners) - 1
    faces: list[int] = []
    for at in range(sides):
        here, there = 1 + at, 1 + (at + 1) % sides
        faces += (top, there, here, bottom, here, there)
    positions = b"".join(struct.pack("<3f", *corner) for corner in corners)
    indices = struct.pack(f"<{len(faces)}H", *faces)
    indices += bytes(-len(indices) % 4)
    low = [min(struct.unpack_from("<f", positions, 12 * at + 4 * axis)[0] for at in range(len(corners))) for axis in range(3)]
    high = [max(struct.unpack_from("<f", positions, 12 * at + 4 * axis)[0] for at in range(len(corners))) for axis in range(3)]
    colour = [0.2 + 0.1 * (seed * step % 8) for step in (1, 3, 5)] + [1.0]
    document = {
        "asset": {"version": "2.0", "generator": "aigate simulated provider", "extras": {"note": note[:1000]}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "simulated"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": colour, "metallicFactor": 0.1}, "doubleSided": True}],
        "accessors": [
            {"bufferView": 0, "componentType": _FLOAT, "count": len(corners), "type": "VEC3", "min": low, "max": high},
            {"bufferView": 1, "componentType": _USHORT, "count": len(faces), "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(positions), "target": _ARRAY},
            {"buffer": 0, "byteOffset": len(positions), "byteLength": 2 * len(faces), "target": _ELEMENTS},
        ],
        "buffers": [{"byteLength": len(positions) + len(indices)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(positions) + len(indices), b"BIN\x00") + positions + indices
    return _headed(chunks, 0)


def padded(model: bytes, size: int) -> bytes:
    """`model` with its length and the head of a chunk that readers skip, for `size` bytes (a multiple of four) to follow."""
    return _headed(model[12:] + struct.pack("<I4s", size, b"PAD\x00"), size)


def _headed(chunks: bytes, more: int) -> bytes:
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) + more) + chunks
