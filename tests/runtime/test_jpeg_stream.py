"""Only whole pictures come out of a stream, however it is cut."""

from __future__ import annotations

import io

import numpy as np
import pytest
from cameras import jpeg, stamp_of, stamped
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nca_edge.camera.jpeg import FOREIGN_BYTES, MOST_BYTES, JpegStream, decode
from nca_edge.camera.protocol import TornFrame
from nca_edge.errors import CameraError

PICTURES = [jpeg(stamped(ms, ms)) for ms in (1, 77, 4_000_000_000)]


def fed(data: bytes, cuts: list[int]) -> tuple[list[bytes], JpegStream]:
    stream, found, before = JpegStream(), [], 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += stream.feed(data[before:cut])
        before = cut
    return found, stream


@given(st.lists(st.integers(0, 10**6), max_size=12), st.sampled_from([b"", b"\r\n--frame\r\n", b"\xff\x00\xff"]))
def test_pictures_come_out_as_they_went_in(cuts: list[int], between: bytes) -> None:
    found, stream = fed(between.join([*PICTURES, b""]), cuts)
    assert found == PICTURES and stream.torn == 0


@given(st.integers(200, len(PICTURES[0]) - 3), st.lists(st.integers(0, 10**6), max_size=6))
def test_a_picture_that_breaks_off_is_left_out(end: int, cuts: list[int]) -> None:
    found, stream = fed(PICTURES[0][:end] + PICTURES[1] + PICTURES[2], cuts)
    assert found[-1] == PICTURES[2] and PICTURES[0] not in found
    assert stream.torn <= 1
    for data in found:
        try:
            assert stamp_of(decode(data)) in (77, 4_000_000_000)
        except TornFrame:
            assert data != PICTURES[2]


def test_a_thumbnail_inside_a_picture_does_not_end_it() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 10
    stream = io.BytesIO()
    Image.fromarray(stamped(5)).save(stream, "JPEG", exif=exif.tobytes() + PICTURES[0][:3000] + b"\xff\xd9")
    assert fed(stream.getvalue(), [])[0] == [stream.getvalue()]


def test_a_progressive_picture_is_one_picture() -> None:
    stream = io.BytesIO()
    Image.fromarray(stamped(9)).save(stream, "JPEG", progressive=True)
    found, _ = fed(stream.getvalue() + PICTURES[0], [100, 2000])
    assert found == [stream.getvalue(), PICTURES[0]] and stamp_of(decode(found[0])) == 9


def test_a_stream_without_end_of_something_else_is_refused() -> None:
    stream = JpegStream()
    with pytest.raises(CameraError, match="no JPEG picture"):
        stream.feed(b"\xff\xd8\xff\xda\x00\x02")
        for _ in range(MOST_BYTES // (1 << 22) + 1):
            stream.feed(bytes(1 << 22))


def test_noise_is_thrown_away_as_it_comes() -> None:
    stream = JpegStream()
    for _ in range(40):
        assert stream.feed(np.random.default_rng(1).integers(0, 255, 1 << 16).astype(np.uint8).tobytes()) == []
    assert len(stream.waiting) <= 4096


def test_a_stream_of_another_format_is_refused() -> None:
    stream, raw = JpegStream(), bytes(range(1, 251)) * 2458  # 640 x 480 in YUYV
    with pytest.raises(CameraError, match="no JPEG picture: choose MJPEG"):
        for _ in range(FOREIGN_BYTES // len(raw) + 1):
            assert stream.feed(raw) == []


def test_half_a_picture_is_torn() -> None:
    with pytest.raises(TornFrame):
        decode(PICTURES[0][: len(PICTURES[0]) // 2])
