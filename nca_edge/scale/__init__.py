"""How large a pixel is, told by the red cells: about 7.5 um across in every clinic and under every stain.

Also what colour they are, since a white cell is found by how it differs from the red cells of its own field.
"""

from nca_edge.scale.crop import WHITE_CELL_UM, cell_diameter_um, crop_scale
from nca_edge.scale.field import RED_CELL_UM, field_scale, red_cells

__all__ = ["RED_CELL_UM", "WHITE_CELL_UM", "cell_diameter_um", "crop_scale", "field_scale", "red_cells"]
