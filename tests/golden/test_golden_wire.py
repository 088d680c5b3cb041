"""The bytes of frames. A change here is a change of the format: raise FRAME_VERSION and docs/wire.md with it.

python tests/golden/test_golden_wire.py writes the file anew; frames that we do not write any more stay, to be read.
Another zlib may deflate to other bytes, and is right to.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from runtime.wire.frames import FRAME_VERSION, decode, encode

GOLDEN = Path(__file__).parent / f"wire_v{FRAME_VERSION}.json"


def feature_map(shape):
    """Half zeros, the rest a geometric tail, by arithmetic alone."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    mixed = i * 2654435761 % 2**32 >> 16
    return np.where(mixed % 2, 0, 2.0 ** -(mixed % 97 / 16)).astype(np.float32).reshape(shape)


TENSORS = {
    "tiny": np.array([0, 0.25, 1, 1.5, 2, 3.75], np.float32).reshape(1, 1, 2, 3),
    "constant": np.full((1, 1, 2, 3), -2.5, np.float32),
    "map": feature_map((1, 8, 6, 6)),
    "batch": feature_map((2, 3, 2, 2)),
    "pixels": (np.arange(24, dtype=np.uint8) * 10).reshape(2, 3, 2, 2),
    "flat": np.full((1, 3, 8, 8), 200, np.uint8),
}
SENT = [
    ("tiny", 4), ("constant", 8), *[("map", bits) for bits in (1, 2, 3, 4, 7, 8, 10, 12, 16, 32)],
    *[("batch", bits) for bits in (3, 5, 6, 11)], ("pixels", 8), ("flat", 8),
]  # fmt: skip


def described(x):
    return {"dtype": str(x.dtype), "shape": list(x.shape), "hex": little(x).hex()}


def little(x):
    return x.astype(x.dtype.newbyteorder("<")).tobytes()


def frame_described(name, bits):
    frame, x = encode(TENSORS[name], bits), TENSORS[name]
    return {"sent": name, "bits": bits, "frame": frame.hex(),
            "read": little(decode(frame, shape=x.shape, dtype=x.dtype)).hex()}  # fmt: skip


def golden():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def sent(name):
    entry = golden()["tensors"][name]
    dtype = np.dtype(entry["dtype"])
    return np.frombuffer(bytes.fromhex(entry["hex"]), dtype.newbyteorder("<")).astype(dtype).reshape(entry["shape"])


def method(entry):
    return int(entry["frame"][10:12], 16)


def labelled(entries):
    return [pytest.param(entry, id=f"{entry['sent']}-{entry['bits']}-{method(entry)}") for entry in entries]


def test_the_file_holds_every_case():
    assert [(entry["sent"], entry["bits"]) for entry in golden()["frames"]] == SENT
    assert {method(entry) for entry in golden()["frames"]} == {0, 1, 2}


@pytest.mark.parametrize("entry", labelled(golden()["frames"] + golden().get("older", [])))
def test_a_frame_written_long_ago_is_read(entry):
    x = sent(entry["sent"])
    back = decode(bytes.fromhex(entry["frame"]), shape=x.shape, dtype=x.dtype)
    assert little(back).hex() == entry["read"]


@pytest.mark.parametrize("entry", labelled(golden()["frames"]))
def test_a_frame_has_the_bytes_it_always_had(entry):
    if method(entry) == 1 and "ng" in zlib.ZLIB_RUNTIME_VERSION:
        pytest.skip("deflates otherwise: run with a Python that is linked with zlib itself, not zlib-ng")
    assert encode(sent(entry["sent"]), entry["bits"]).hex() == entry["frame"]


if __name__ == "__main__":
    before, now = golden(), [frame_described(name, bits) for name, bits in SENT]
    older = [entry for entry in [*before.get("older", []), *before["frames"]] if entry not in now]
    content = {"tensors": {name: described(x) for name, x in TENSORS.items()}, "frames": now, "older": older}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
