"""Random variation of cell images: geometry, then what stains, lamps and cameras do.

Colour is varied where it arises, in absorbance: dyes and sensors differ between clinics by a mixing of the three channels, and
stain strength by a factor. The residues of white-balance and illumination correction are small additions there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nca_edge.preprocess import ABSORBANCE_MAX, match_stain
from nca_train.recipe import Augment


def augment(wide: Tensor, wide_um: float, view_um: float, size: int, options: Augment) -> Tensor:
    """Draw one training view of each wide crop; as on the device, its stain is matched last.

    Parameters
    ----------
    wide : (n, p, p, 3) uint8, background-corrected crops that span ``wide_um``, the cell in the middle
    size : side of the views, px

    Returns
    -------
    (n, size, size, 3) float32, 0..1, background 1
    """
    views = _geometry(wide.permute(0, 3, 1, 2).float() / 255, wide_um, view_um, size, options)
    views = _cut(_swap(views, view_um, options), options)
    views = _colour(views, options)
    views = _optics(views, view_um / size, options).permute(0, 2, 3, 1).contiguous()
    return torch.from_numpy(match_stain(views.cpu().numpy())).to(views.device)


def _geometry(images: Tensor, wide_um: float, view_um: float, size: int, options: Augment) -> Tensor:
    """Rotate, mirror, scale and shift; sampled at twice the size and averaged, so that nothing aliases."""
    n, device = images.shape[0], images.device
    angle = torch.rand(n, device=device) * 2 * math.pi
    zoom = torch.exp(torch.randn(n, device=device) * options.scale_sd).clamp(0.6, 1.6) * (view_um / wide_um)
    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    shift = torch.randn(n, 2, device=device) * (2 * options.shift_um / wide_um)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [torch.stack([cosine * mirror, -sine, shift[:, 0]], 1), torch.stack([sine * mirror, cosine, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, [n, 3, 2 * size, 2 * size], align_corners=False)
    # sampled as "missing ink", so that zero padding outside the image is white
    ink = F.grid_sample(1 - images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 1 - F.avg_pool2d(ink, 2)


def _swap(views: Tensor, view_um: float, options: Augment) -> Tensor:
    """Set the centre of some views into the surroundings of others.

    Artefacts come from other microscopes than the labelled cells do; without this, whatever looks like another microscope
    became an artefact: 24 of 41 true cells of foreign fields after two epochs.
    """
    n, _, size, _ = views.shape
    device = views.device
    line = (torch.arange(size, device=device) + 0.5) / size - 0.5
    distance_um = view_um * torch.sqrt(line[:, None] ** 2 + line[None, :] ** 2)
    radius_um = 8.5 + 2.5 * torch.rand(n, 1, 1, 1, device=device)  # the largest white cells just fit
    inside = torch.sigmoid((radius_um - distance_um) * 4)  # an edge about 1 um wide
    swapped = views * inside + views[torch.randperm(n, device=device)] * (1 - inside)
    chosen = torch.rand(n, 1, 1, 1, device=device) < options.swap_share
    return torch.where(chosen, swapped, views)


def _cut(views: Tensor, options: Augment) -> Tensor:
    """White beyond a line, as where the field ends; one side is enough, since cells come at any angle."""
    n, _, _, size = views.shape
    device = views.device
    edge = (0.15 + 0.3 * torch.rand(n, device=device)) * 2 - 1  # up to 45 % of the view lie outside the field
    line = torch.linspace(-1, 1, size, device=device)
    outside = (line[None, :] < edge[:, None]) & (torch.rand(n, 1, device=device) < options.cut_share)
    return torch.where(outside[:, None, None, :], torch.ones_like(views), views)


def _colour(views: Tensor, options: Augment) -> Tensor:
    n, device = views.shape[0], views.device
    ink = -torch.log(views.clamp(min=math.exp(-ABSORBANCE_MAX)))
    mix = torch.eye(3, device=device) + torch.randn(n, 3, 3, device=device) * options.stain_mix_sd
    strength = options.stain_strength_min ** torch.rand(n, 1, 1, device=device)
    ink = torch.einsum("nij,njyx->niyx", mix * strength, ink)
    ink = ink + torch.randn(n, 3, 1, 1, device=device) * options.tint_sd
    line = torch.linspace(-1, 1, views.shape[2], device=device)
    slope = torch.randn(n, 2, device=device) * options.gradient_sd
    ink = (
        ink
        + slope[:, 0, None, None, None] * line[None, None, :, None]
        + slope[:, 1, None, None, None] * line[None, None, None, :]
    )
    return torch.exp(-ink)


def _optics(views: Tensor, um_per_px: float, options: Augment) -> Tensor:
    n, device = views.shape[0], views.device
    glare = torch.rand(n, 1, 1, 1, device=device) * options.glare * (torch.rand(n, 1, 1, 1, device=device) < 0.5)
    views = (views + glare) / (1 + glare)
    if options.blur_um > 0:
        views = _blurred(views, torch.rand(n, device=device) * options.blur_um / um_per_px + 1e-3)
    if options.sharpen > 0:
        amount = (torch.rand(n, 1, 1, 1, device=device) * 2 - 1).clamp(min=0) * options.sharpen  # half of the views
        views = views + amount * (views - _blurred(views, torch.full((n,), 0.5 / um_per_px, device=device)))
    views = views + torch.randn_like(views) * options.noise_sd * torch.rand(n, 1, 1, 1, device=device)
    return views.clamp(0, 1)


def _blurred(views: Tensor, sigma: Tensor) -> Tensor:
    """Each view under a Gaussian of its own ``sigma`` (n,), px, cut at 3 px."""
    n, _, height, width = views.shape
    offsets = torch.arange(-3, 4, device=views.device)
    kernel = torch.exp(-0.5 * (offsets[None, :] / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(views, (3, 3, 3, 3), mode="replicate").reshape(1, n * 3, height + 6, width + 6)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * 3)
    return F.conv2d(flat, kernel[:, None, None, :], groups=n * 3).reshape(n, 3, height, width)
