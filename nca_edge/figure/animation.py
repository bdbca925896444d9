"""The top channels step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nca_edge import RESEARCH_USE
from nca_edge.drawing import stretch
from nca_edge.figure.primitives import COLUMNS, GAP, SOFT, TILE, asked, caption, peaks, tiles, write
from nca_edge.records import Explanation, Image32


def animation(states: Image32, explanation: Explanation, title: str) -> list[Image.Image]:
    """Frames of the top channels, one a step; a channel keeps its colours from the first to the last.

    Parameters
    ----------
    states : (steps + 1, grid, grid, channels), the state before the first step and after each
    """
    channels = [c.channel for c in explanation.top_channels]
    maps = np.stack([stretch(states[..., channel]) for channel in channels], axis=1)
    rows = -(-len(channels) // COLUMNS)
    width, height = 2 * 20 + COLUMNS * (TILE + GAP) - GAP, 70 + rows * (TILE + 46) + 40
    frames = []
    for step, now in enumerate(maps):
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        write(draw, (20, 12), f"{title}: {asked(explanation)}", 20, width=width - 40)
        write(draw, (20, 40), f"step {step} of {len(maps) - 1}", 18, SOFT)
        tiles(
            image,
            draw,
            (20, 70),
            (now, peaks(explanation)),
            [caption(c.channel, c.relevance) for c in explanation.top_channels],
        )
        write(draw, (20, height - 30), RESEARCH_USE, 15, SOFT)
        frames.append(image)
    return frames


def save_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """As an endless GIF that rests on its last frame."""
    palette = frames[-1].quantize(64)
    quick = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [250] * (len(frames) - 1) + [2000]
    quick[0].save(path, save_all=True, append_images=quick[1:], duration=times, loop=0, optimize=True)
