"""One figure per cell: what was seen, where the cell is, which channels spoke for its class, how sure the model is.

The ten channels stand as in figure 4 of the MICCAI paper (2024). Pillow alone draws it: a board needs no plotting library.
Colours are those of ``drawing``; signs and hatching say once more what colours say, for a grey print.
"""

from nca_edge.figure.animation import animation, save_animation
from nca_edge.figure.layout import Case, figure, save

__all__ = ["Case", "animation", "figure", "save", "save_animation"]
