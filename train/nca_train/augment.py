"""Random variation of cell images: geometry, then what stains, lamps and cameras do.

Colour is varied where it arises, in absorbance: dyes and sensors differ between clinics by a mixing of the three channels, and
stain strength by a factor. The residues of white-balance and illumination correction are small additions there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nca_edge.preprocess import ABSORBANCE_MAX, match_stain
from nca_edge.scale import WHITE_CELL_UM
from nca_train.recipe import Augment

TONE_OWN = (0.5, 0.5, 1.2)
"""How far the tone curves of R, G and B differ, as a share of what cameras differ in. Blue most: a nucleus absorbs little of
it, and it made eosinophils of another clinic's neutrophils (transmittance of the cytoplasm 0.76 there, 0.89 at home and 0.78 in
eosinophils, with the nuclei matched)."""


class _Dice:
    """Random numbers of one generator, where the images are."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator, device=self.generator.device)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What wide crops and views span."""

    wide_um: float
    """Side of a wide crop, um."""
    view_um: float
    """Side of a view, um."""
    size: int
    """Side of a view, px."""


def augment(wide: Tensor, sizes: Sizes, options: Augment, generator: torch.Generator, own_um: Tensor | None = None) -> Tensor:
    """Draw one training view of each wide crop; as on the device, its stain is matched last.

    Parameters
    ----------
    wide : (n, p, p, 3) uint8, background-corrected crops that span ``wide_um``, the cell in the middle
    generator : decides everything; on the device of ``wide``
    own_um : (n,) diameter that the device would take each cell for, 0: none; None: nobody's

    Returns
    -------
    (n, size, size, 3) float32, 0..1, background 1
    """
    dice = _Dice(generator)
    scales = torch.ones(len(wide), device=wide.device) if own_um is None else _own_scales(own_um, options, dice)
    views = _geometry(wide.permute(0, 3, 1, 2).float() / 255, scales, sizes, options, dice)
    views = _cut(_swap(views, sizes.view_um, options, dice), options, dice)
    varied = _optics(_colour(views, options, dice), sizes.view_um / sizes.size, options, dice)
    own = dice.uniform(views.shape[0], 1, 1, 1) < options.own_colour_share
    views = torch.where(own, views, varied).permute(0, 2, 3, 1).contiguous()
    return torch.from_numpy(match_stain(views.cpu().numpy())).to(views.device)


def _own_scales(own_um: Tensor, options: Augment, dice: _Dice) -> Tensor:
    """(n,) how much wider a view is where the device takes its scale from the cell's own size, else 1.

    A crop without red cells shows every cell equally large: without this, other clinics' lymphocytes became monocytes.
    """
    by_size = torch.where(own_um > 0, own_um / WHITE_CELL_UM, 1.0).clamp(0.5, 2.0)
    return torch.where(dice.uniform(len(own_um)) < options.own_scale_share, by_size, 1.0)


def _geometry(images: Tensor, scales: Tensor, sizes: Sizes, options: Augment, dice: _Dice) -> Tensor:
    """Rotate, mirror, scale and shift; sampled at twice the size and averaged, so that nothing aliases."""
    n = images.shape[0]
    angle = dice.uniform(n) * 2 * math.pi
    zoom = torch.exp(dice.normal(n) * options.scale_sd).clamp(0.55, 1.8) * scales * (sizes.view_um / sizes.wide_um)
    mirror = torch.where(dice.uniform(n) < 0.5, -1.0, 1.0)
    shift = dice.normal(n, 2) * (2 * options.shift_um / sizes.wide_um)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [torch.stack([cosine * mirror, -sine, shift[:, 0]], 1), torch.stack([sine * mirror, cosine, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, [n, 3, 2 * sizes.size, 2 * sizes.size], align_corners=False)
    # sampled as "missing ink", so that zero padding outside the image is white
    ink = F.grid_sample(1 - images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 1 - F.avg_pool2d(ink, 2)


def _swap(views: Tensor, view_um: float, options: Augment, dice: _Dice) -> Tensor:
    """Set the centre of some views into the surroundings of others.

    Artefacts come from other microscopes than the labelled cells do; without this, whatever looks like another microscope
    became an artefact: 24 of 41 true cells of foreign fields after two epochs.
    """
    n, _, size, _ = views.shape
    device = views.device
    line = (torch.arange(size, device=device) + 0.5) / size - 0.5
    distance_um = view_um * torch.sqrt(line[:, None] ** 2 + line[None, :] ** 2)
    radius_um = 8.5 + 2.5 * dice.uniform(n, 1, 1, 1)  # the largest white cells just fit
    inside = torch.sigmoid((radius_um - distance_um) * 4)  # an edge about 1 um wide
    swapped = views * inside + views[dice.permutation(n)] * (1 - inside)
    chosen = dice.uniform(n, 1, 1, 1) < options.swap_share
    return torch.where(chosen, swapped, views)


def _cut(views: Tensor, options: Augment, dice: _Dice) -> Tensor:
    """White beyond a line, as where the field ends; one side is enough, since cells come at any angle."""
    n, _, _, size = views.shape
    device = views.device
    edge = (0.15 + 0.3 * dice.uniform(n)) * 2 - 1  # up to 45 % of the view lie outside the field
    line = torch.linspace(-1, 1, size, device=device)
    outside = (line[None, :] < edge[:, None]) & (dice.uniform(n, 1) < options.cut_share)
    return torch.where(outside[:, None, None, :], torch.ones_like(views), views)


def _colour(views: Tensor, options: Augment, dice: _Dice) -> Tensor:
    n, device = views.shape[0], views.device
    ink = -torch.log(views.clamp(min=math.exp(-ABSORBANCE_MAX)))
    mix = torch.eye(3, device=device) + dice.normal(n, 3, 3) * options.stain_mix_sd
    strength = options.stain_strength_min ** dice.uniform(n, 1, 1)
    ink = torch.einsum("nij,njyx->niyx", mix * strength, ink)
    if options.tone_sd:  # a camera's tone curve: one for the camera, and what its three channels differ in
        own = torch.tensor(TONE_OWN, device=device)[:, None, None]
        curve = dice.normal(n, 1, 1, 1) + own * dice.normal(n, 3, 1, 1)
        ink = ink.sign() * ink.abs().clamp(min=1e-4) ** torch.exp(options.tone_sd * curve)
    ink = ink + dice.normal(n, 3, 1, 1) * options.tint_sd
    line = torch.linspace(-1, 1, views.shape[2], device=device)
    slope = dice.normal(n, 3, 2, 1, 1) * 0.7 + dice.normal(n, 1, 2, 1, 1) * 0.7
    slope = slope * options.gradient_sd
    return torch.exp(-(ink + slope[:, :, 0] * line[None, None, :, None] + slope[:, :, 1] * line[None, None, None, :]))


def _optics(views: Tensor, um_per_px: float, options: Augment, dice: _Dice) -> Tensor:
    n, device = views.shape[0], views.device
    glare = dice.uniform(n, 1, 1, 1) * options.glare * (dice.uniform(n, 1, 1, 1) < 0.5)
    views = (views + glare) / (1 + glare)
    if options.blur_um > 0:
        sigma = dice.uniform(n, 1) * options.blur_um / um_per_px
        sigma = sigma * torch.exp(0.25 * dice.normal(n, 3)) + 1e-3  # a lens focuses the colours at three depths
        fringe = dice.normal(n, 3, 2) * (options.fringe_um / um_per_px)
        views = _blurred(views, sigma, fringe)
    if options.sharpen > 0:
        amount = (dice.uniform(n, 1, 1, 1) * 2 - 1).clamp(min=0) * options.sharpen  # half of the views
        views = views + amount * (views - _blurred(views, torch.full((n, 3), 0.5 / um_per_px, device=device)))
    views = views + dice.normal(*views.shape) * options.noise_sd * dice.uniform(n, 1, 1, 1)
    if options.jpeg > 0:
        views = _compressed(views, dice.uniform(n) * options.jpeg)
    return views.clamp(0, 1)


def _blurred(views: Tensor, sigma: Tensor, shift: Tensor | None = None) -> Tensor:
    """Each channel of each view under a Gaussian of its own ``sigma`` (n, 3), px, cut at 3 px, moved by ``shift`` (n, 3, 2)."""
    n, _, height, width = views.shape
    flat = F.pad(views, (3, 3, 3, 3), mode="replicate").reshape(1, n * 3, height + 6, width + 6)
    offsets = torch.arange(-3, 4, device=views.device) + (0 if shift is None else shift.reshape(n * 3, 2, 1))
    # a softmax, since between two pixels a narrow Gaussian is 0 at both: the plain quotient cost one view in thirty a colour
    kernels = torch.softmax(-0.5 * (offsets / sigma.reshape(n * 3, 1, 1)) ** 2, 2).expand(n * 3, 2, 7)
    flat = F.conv2d(flat, kernels[:, None, 0, :, None], groups=n * 3)
    return F.conv2d(flat, kernels[:, None, 1, None, :], groups=n * 3).reshape(n, 3, height, width)


def _compressed(views: Tensor, coarseness: Tensor) -> Tensor:
    """What JPEG leaves of each view: 8x8 cosine blocks, rounded the coarser the finer the detail; colour twice as coarse.

    ``coarseness`` (n,): quantization step of the mean of a block, as a share of white.
    """
    n, _, height, width = views.shape
    k = torch.arange(8, device=views.device, dtype=views.dtype)
    cosine = torch.cos(math.pi * (2 * k[None, :] + 1) * k[:, None] / 16) * 0.5
    cosine[0] *= math.sqrt(0.5)
    luma = views.mean(1, keepdim=True)
    planes = torch.cat([luma, views - luma], 1).reshape(n, 4, height // 8, 8, width // 8, 8)
    spectrum = torch.einsum("ki,ncyixj,lj->ncykxl", cosine, planes, cosine)
    step = 8 * (1 + (k[:, None, None] + k) / 2) * coarseness[:, None, None, None, None, None]
    step = torch.cat([step, 2 * step, 2 * step, 2 * step], 1) + 1e-6
    planes = torch.einsum("ki,ncykxl,lj->ncyixj", cosine, torch.round(spectrum / step) * step, cosine)
    planes = planes.reshape(n, 4, height, width)
    return planes[:, :1] + planes[:, 1:]
