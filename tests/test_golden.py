"""Frames made once, on a GPU and on a CPU, are read for ever."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch

from sepzip.pipeline import decompress_stream

FOLDER = Path(__file__).parent / "golden"
FRAMES = sorted(FOLDER.glob("*.sep"))
DISTINCT = list({path.read_bytes(): path for path in reversed(FRAMES)}.values())
"""One of each that are equal to the last byte: those that a GPU and a CPU made."""
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
CONTENTS = {
    "archive": "ac0bd661b1611eb064d1aa62469b86464714ab7107ed745da380868632f950c5",
    "code": "668bcd04e4095f4fdac6c5bbb9e3a6f9e055091b8314486871cfbb9e41cb2b37",
    "floats": "ea3c4457fa4ff2c5efe73ca57bb26d924e99dc590db7f297de387835bc8c12bd",
    "packed": "09d57ef66f915fb8831c702f07497ef2a5330758a987b1d22422a6fd9d0e3f95",
    "text": "1f6cc73f45fc1d5b3ced61044a49616c9c79710747c80bd20a63db9cd538a39c",
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", DISTINCT, ids=lambda path: path.name)
def test_golden_frame_gives_its_content(path: Path, device: str) -> None:
    content = io.BytesIO()
    decompress_stream(io.BytesIO(path.read_bytes()), content, device)
    assert hashlib.sha256(content.getvalue()).hexdigest() == CONTENTS[path.name.split(".")[0]]


def test_no_golden_frame_is_missing() -> None:
    assert len(FRAMES) == 58


def test_devices_made_the_same_frames() -> None:
    for path in FOLDER.glob("*.cuda.sep"):
        assert path.read_bytes() == Path(str(path).replace(".cuda.", ".cpu.")).read_bytes()
