"""Is a field worth looking at? Rejected fields are results: each comes with a sentence that says what to do at the
microscope."""

from nca_edge.quality.crop import nothing_in
from nca_edge.quality.focus import sharpness
from nca_edge.quality.gate import assess, assess_smear

__all__ = ["assess", "assess_smear", "nothing_in", "sharpness"]
