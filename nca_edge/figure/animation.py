"""The top channels step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nca_edge import RESEARCH_USE
from nca_edge.drawing import stretch
from nca_edge.figure.primitives import COLUMNS, GAP, SOFT, TILE, asked, caption, tiles, write
from nca_edge.records import Explanation, Image32


def animation(states: Image32, explanation: Explanation, title: str, pool: str = "max") -> list[Image.Image]:
    """Frames of the top channels, one a step; a channel keeps its colours from the first to the last.

    One look is shown, upright; the rings are its own, where an explanation from several looks takes each from the loudest.

    Parameters
    ----------
    states : (steps + 1, grid, grid, channels), the state before the first step and after each
    pool : of the model, as ``explain.top_channels`` has it
    """
    channels = [c.channel for c in explanation.top_channels]
    maps = np.stack([stretch(states[..., channel]) for channel in channels], axis=1)
    rings = [peak_of(states[-1][..., channel], pool) for channel in channels]
    rows = -(-len(channels) // COLUMNS)
    width, height = 2 * 20 + COLUMNS * (TILE + GAP) - GAP, 70 + rows * (TILE + 46) + 40
    frames = []
    for step, now in enumerate(maps):
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        write(draw, (20, 12), f"{title}: {asked(explanation)}", 20, width=width - 40)
        write(draw, (20, 40), f"step {step} of {len(maps) - 1}{', in one look' if explanation.looks > 1 else ''}", 18, SOFT)
        tiles(
            image,
            draw,
            (20, 70),
            (now, rings),
            [caption(c.channel, c.relevance) for c in explanation.top_channels],
        )
        write(draw, (20, height - 30), RESEARCH_USE, 15, SOFT)
        frames.append(image)
    return frames


def peak_of(values: Image32, pool: str) -> tuple[float, float]:
    """(x, y), 0..1, the middle of the grid cell that won."""
    grid = len(values)
    row, column = divmod(int(np.argmax(np.abs(values) if pool == "mean" else values)), grid)
    return (column + 0.5) / grid, (row + 0.5) / grid


def save_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """As an endless GIF that rests on its last frame."""
    palette = frames[-1].quantize(64)
    quick = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [250] * (len(frames) - 1) + [2000]
    quick[0].save(path, save_all=True, append_images=quick[1:], duration=times, loop=0, optimize=True)
