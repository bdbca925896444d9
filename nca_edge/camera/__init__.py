"""Frames in: image files and folders of them, and anything that shows a microscope's picture while it moves.

One file a source; ``uri.py`` is the one place that chooses among them by name, ``reader.py`` the one way to read them.
"""

from nca_edge.camera.files import (
    FORMATS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    field_name,
    file_frames,
    list_images,
    read_image,
)
from nca_edge.camera.protocol import CameraStatus, Shot, Source
from nca_edge.camera.reader import Reader
from nca_edge.camera.uri import is_live, open_uri

__all__ = [
    "FORMATS", "IMAGE_SUFFIXES", "MAX_PIXELS", "CameraStatus", "Reader", "Shot", "Source", "field_name", "file_frames",
    "is_live", "list_images", "open_uri", "read_image",
]  # fmt: skip
