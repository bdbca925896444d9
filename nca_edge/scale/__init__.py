"""How large a pixel is, told by the red cells: about 7.5 um across in every clinic and under every stain.

Also what colour they are, since a white cell is found by how it differs from the red cells of its own field.
"""

from nca_edge.scale.crop import crop_scale
from nca_edge.scale.field import RED_CELL_UM, field_scale, red_cells

__all__ = ["RED_CELL_UM", "crop_scale", "field_scale", "red_cells"]
