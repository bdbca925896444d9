"""Time and memory of one training step of the paper's automaton: as this project computes it, and in plain PyTorch.

Usage: python tests/benchmarks/training_step.py [--batch 4] [--rounds 3] [--threads 2] [--device cpu|cuda] [--memory]
                                                [--memory-batch 16] [--json FILE]                          (needs torch)
The plain step is the paper's, layer by layer, in float32 with Adam; once with its state turned to channel, row, column for each
perception, once to channel, column, row, as the released code does by swapping two axes: PyTorch takes the first for
channels_last and copies the second. Exit code 1 where they do not compute the logits of the project.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nca_edge.automaton import PRESETS, Weights
from nca_edge.errors import UsageError
from nca_train import draws
from nca_train.model import NCA
from nca_train.objective import objective
from nca_train.parallel import choose_device
from nca_train.recipe import Train

PAPER = PRESETS["paper"]
LEARNING_RATE = 4e-4
BOUND = 1e-3
"""Largest difference of a logit between the float32 models."""
KEEP = (0, 8)
"""``checkpoint_steps`` whose memory is measured; 0 keeps every activation."""


class Batch(NamedTuple):
    """What a step learns from: noise, since neither time nor memory depends on what the images show."""

    images: Tensor
    """(n, size, size, 3) float32, normalised."""
    labels: Tensor
    """(n,) int64."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of one step of this project in a fresh process."""

    bf16: bool
    checkpoint_steps: int
    batch: int
    peak_mb: float
    """What the step adds to the model and the batch, MB of 10^6 bytes: resident, or allocated on the GPU."""


class Plain(nn.Module):
    """The paper's automaton as its text reads: the state lies row, column, channel and is turned around each perception.

    Parameters
    ----------
    swapped : turn it by swapping axes 1 and 3, so that the kernels act on (column, row)
    """

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        channels = PAPER.channels
        self.there, self.back = ((0, 3, 2, 1), (0, 3, 2, 1)) if swapped else ((0, 3, 1, 2), (0, 2, 3, 1))
        self.swapped = swapped
        self.k1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", groups=channels)
        self.k2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", groups=channels)
        self.w1 = nn.Linear(3 * channels, PAPER.hidden)
        self.w2 = nn.Linear(PAPER.hidden, channels, bias=False)
        self.head1 = nn.Linear(channels, PAPER.head)
        self.head2 = nn.Linear(PAPER.head, PAPER.classes)

    def load_weights(self, weights: Weights) -> None:
        """Fill it with weights by the project's names."""
        with torch.no_grad():
            for name, array in weights.items():
                base, _, kind = name.partition("_")
                parameter = getattr(getattr(self, base), kind or "weight")
                tensor = torch.from_numpy(array)
                if self.swapped and name in ("k1", "k2"):
                    tensor = tensor.transpose(1, 2)
                parameter.copy_(tensor.reshape(parameter.shape))

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """(n, size, size, 3) images -> (n, classes) logits; ``masks`` (steps, n, grid, grid), None: drawn anew each step."""
        fixed = PAPER.image_channels
        x = F.pad(images, (0, PAPER.channels - fixed))
        for step in range(PAPER.steps):
            turned = x.permute(self.there)
            y = torch.cat([turned, self.k1(turned), self.k2(turned)], 1).permute(self.back)
            delta = self.w2(F.relu(self.w1(y)))
            mask = torch.rand((*x.shape[:3], 1), device=x.device) < 0.5 if masks is None else masks[step, ..., None]
            updated = x + delta * mask.float()
            x = torch.cat([x[..., :fixed], updated[..., fixed:]], 3)
        logits: Tensor = self.head2(F.relu(self.head1(x.amax(dim=(1, 2)))))
        return logits


def start() -> Weights:
    """Random weights under which the state changes: both models begin with an update of 0, which would compare nothing."""
    torch.manual_seed(0)
    model = NCA(PAPER)
    nn.init.normal_(model.w2.weight, std=0.02)
    return model.weights()


def draw_batch(n: int, device: torch.device) -> Batch:
    """n images of noise."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((n, PAPER.size, PAPER.size, 3), generator=generator)
    return Batch(images.to(device), (torch.arange(n) % PAPER.classes).to(device))


def plain_step(batch: Batch, swapped: bool) -> Callable[[], None]:
    """One update: fresh masks, cross-entropy, Adam."""
    model = Plain(swapped).to(batch.images.device)
    model.load_weights(start())
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, betas=(0.9, 0.99))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()

    return step


def project_step(batch: Batch, bf16: bool, checkpoint_steps: int = 0) -> Callable[[], None]:
    """One update as ``nca_train.loop`` makes it, without the reading of images and the averaging of weights."""
    options = Train(1, len(batch.labels), LEARNING_RATE, bf16=bf16, checkpoint_steps=checkpoint_steps)
    model = NCA(PAPER, bf16).to(batch.images.device)
    model.load_weights(start())
    optimizer = torch.optim.AdamW(
        model.parameters(), options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay
    )
    allowed = F.one_hot(batch.labels, PAPER.classes).bool()
    update = 0

    def step() -> None:
        nonlocal update
        optimizer.zero_grad(set_to_none=True)
        fire = draws.schedule(PAPER, 0, update, 0, options.batch).to(batch.images.device)
        answers, state = model(batch.images, fire, options.exits, options.checkpoint_steps)
        objective(answers, state, allowed, None, options).mean().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        if torch.isfinite(norm):
            optimizer.step()
        update += 1

    return step


def compare_logits(device: torch.device) -> tuple[float, float]:
    """Largest difference of a logit of any plain model from the same weights and masks, two images; and the largest logit."""
    batch, weights = draw_batch(2, device), start()
    masks = draws.schedule(PAPER, 0, 0, 0, 2).to(device)
    project = NCA(PAPER).to(device)
    project.load_weights(weights)
    apart = []
    with torch.inference_mode():
        (expected,), _ = project(batch.images, masks)
        for swapped in (False, True):
            plain = Plain(swapped).to(device)
            plain.load_weights(weights)
            apart.append(float((plain(batch.images, masks) - expected).abs().max()))
    return max(apart), float(expected.abs().max())


def time_steps(batch: Batch, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step by variant. They take turns, so that whatever else the machine does strikes all of them."""
    steps = {
        "plain": plain_step(batch, False), "swapped": plain_step(batch, True),
        "fp32": project_step(batch, False), "bf16": project_step(batch, True),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            _finish(batch.images.device)
            started = time.perf_counter()
            step()
            _finish(batch.images.device)
            if number:  # the first round fills caches and allocators
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_memory(n: int, device: torch.device, bf16: bool, checkpoint_steps: int) -> float:
    """MB that the first step of this process adds at its peak."""
    step = project_step(draw_batch(n, device), bf16, checkpoint_steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return float(torch.cuda.max_memory_allocated(device) - before) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 1e6


def measure_memory(given: argparse.Namespace, bf16: bool, checkpoint_steps: int) -> Memory:
    """Run this program anew for one step: a peak never goes down within a process."""
    command = [sys.executable, __file__, "--memory-of", json.dumps([bf16, checkpoint_steps])]
    for name in ("memory_batch", "threads", "device"):
        command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Memory(bf16, checkpoint_steps, given.memory_batch, float(output))


def report(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Measure and print."""
    # Memory first: Linux starts a process's peak at what its parent held, so this one must still be small.
    memory = [measure_memory(given, bf16, keep) for bf16 in (False, True) for keep in KEEP] if given.memory else []
    apart, scale = compare_logits(device)
    print(f"torch {torch.__version__}, {device.type}, {given.threads} threads, batch {given.batch}, {given.rounds} rounds")
    print(f"logits differ by at most {apart:.2g} (bound {BOUND:g}; largest logit {scale:.3g})")
    seconds = time_steps(draw_batch(given.batch, device), given.rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    over = {plain: {name: medians[plain] / medians[name] for name in ("fp32", "bf16")} for plain in ("plain", "swapped")}
    print(f"{'step':<8} {'median s':>9} {'images/s':>9} {'plain / it':>11} {'swapped / it':>13}")
    for name, median in medians.items():
        ratios = [medians[plain] / median for plain in over]
        print(f"{name:<8} {median:>9.3f} {given.batch / median:>9.2f} {ratios[0]:>11.2f} {ratios[1]:>13.2f}")
    for m in memory:
        kept = f"the state every {m.checkpoint_steps} steps" if m.checkpoint_steps else "all steps"
        print(f"peak of a step, batch {m.batch}, {'bf16' if m.bf16 else 'fp32'}, keeping {kept}: {m.peak_mb:.0f} MB")
    return {
        "torch": torch.__version__, "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": given.threads, "batch": given.batch, "rounds": given.rounds, "logits_apart": apart, "logits_scale": scale,
        "median_s": medians, "plain_over": over["plain"], "swapped_over": over["swapped"], "seconds": seconds,
        "memory": [asdict(m) for m in memory],
    }  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each variant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory", action="store_true", help="also measure the peak memory of a step")
    parser.add_argument("--memory-batch", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if min(given.batch, given.rounds, given.threads, given.memory_batch) < 1:
        parser.error("--batch, --rounds, --threads and --memory-batch must be 1 or more.")
    try:
        device = choose_device(given.device)
    except UsageError as error:
        parser.error(str(error))
    torch.set_num_threads(given.threads)
    if given.memory_of:
        print(step_memory(given.memory_batch, device, *json.loads(given.memory_of)))
        return
    figures = report(given, device)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(not figures["logits_apart"] <= BOUND)


if __name__ == "__main__":
    main()
