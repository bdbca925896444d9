"""What is kept: one folder per session, with ``session.db`` as the truth and files that can be rebuilt from it."""

from nca_edge.session.files import replace_file
from nca_edge.session.rows import CellRow, FieldRow, TopChannel
from nca_edge.session.store import Session

__all__ = ["CellRow", "FieldRow", "Session", "TopChannel", "replace_file"]
