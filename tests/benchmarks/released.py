"""How far both implementations are from what the released code computed with the released weights, on eight golden cells; with
--data also how far each exported variant is from the reference, on fold-3 cells normalised by their own statistics.

Usage: python tests/benchmarks/released.py --models DIR [--data DATA/acevedo20] [--cells 60] [--json FILE]      (needs torch)
DIR holds wbc_nca_matek19.pt and wbc_nca_matek19_golden.npz.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nca_edge.backends import NumpyBackend, OnnxBackend
from nca_edge.differential import clopper_pearson
from nca_edge.explain import head_relevance
from nca_edge.formats import FORMATS
from nca_edge.records import Image32
from nca_export.onnx_graph import build_onnx
from nca_export.parity import SURE_LOGITS, Parity, error
from nca_export.parity import measure as measure_variant
from nca_export.prepare import Prepared, prepare_released
from nca_export.source import released_cells, spread
from nca_export.variants import build, runner
from nca_train.model import NCA
from nca_train.released import load_released

say = partial(print, flush=True)


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Largest absolute difference of logits, pooled channels and state, by implementation; of relevance for LRP."""
    architecture, weights = load_released(folder / "wbc_nca_matek19.pt")
    with np.load(folder / "wbc_nca_matek19_golden.npz", allow_pickle=False) as archive:
        golden = {name: archive[name] for name in archive.files}
    images = ((golden["images"] / 255.0 - golden["mean"]) / golden["std"]).astype(np.float32)
    fire = np.unpackbits(golden["fire"], axis=-1)
    model = NCA(architecture)
    model.load_weights(weights)
    with torch.inference_mode():
        (logits,), state = model(torch.from_numpy(images), fire)
    answers = {"torch": (logits.numpy(), state.numpy())}
    for backend in (
        NumpyBackend(architecture, weights, fire),
        OnnxBackend("model.onnx", build_onnx(architecture, weights, fire), architecture, threads=2),
    ):
        answer = backend(images)
        answers[backend.name] = (answer.logits, answer.state)

    def differences(answer: tuple[Image32, Image32]) -> dict[str, float]:
        pairs = {
            "logits": (answer[0], golden["logits"]),
            "pooled": (answer[1].max((1, 2)), golden["pooled"]),
            "state": (answer[1][:2, ..., ::16], golden["state_sample"]),
        }
        return {name: float(np.abs(found - expected).max()) for name, (found, expected) in pairs.items()}

    targets = golden["relevance_class"].tolist()
    relevance = [
        head_relevance(pooled, weights, target).channels for pooled, target in zip(golden["pooled"], targets, strict=True)
    ]
    lrp = float(np.abs(np.stack(relevance) - golden["relevance"]).max())
    return {**{name: differences(answer) for name, answer in answers.items()}, "lrp": {"relevance": lrp}}


def unseen_cells(data: Path, prepared: Prepared, count: int) -> Image32:
    """So many normalised cells of fold 3, evenly spread, that the scales of int8 were not taken from."""
    every = released_cells(data, prepared.automaton.architecture.size)
    seen = spread(np.arange(len(every)), len(prepared.cells))
    return prepared.normalised(every[spread(np.setdiff1d(np.arange(len(every)), seen), count)])


def measure_variants(folder: Path, data: Path, count: int) -> list[dict[str, Any]]:
    """Each variant against the reference, on cells that int8 has not seen."""
    prepared = prepare_released(folder / "wbc_nca_matek19.pt", data, say)
    m, images = prepared.automaton, unseen_cells(data, prepared, count)
    say(f"the reference names {len(images)} cells")
    reference = NumpyBackend(m.architecture, m.weights, m.fire)(images)
    best = np.sort(reference.logits, 1)
    sure = int((best[:, -1] - best[:, -2] > SURE_LOGITS).sum())
    rows = []
    for form in FORMATS:
        for precision in form.precisions:
            parity = measure_variant(form.name, precision, m, images, reference.logits)
            found = runner(form.name, build(form.name, precision, m))(images)["state"]
            states = [error(one, expected) for one, expected in zip(found, reference.state, strict=True)]
            rows.append({
                **parity.to_json(), "agreement_interval": _interval(parity), "sure": sure,
                "state": float(np.median(states)), "state_largest": max(states),
            })  # fmt: skip
            say(
                f"{parity.file:<18} {parity.agreement:.1%} of {parity.n}, {parity.sure_agreement or 0:.1%} of {sure} sure agree"
            )
            say(f"  logits within {parity.logits:.2g}, state {rows[-1]['state']:.2g}, at most {max(states):.2g}")
    return rows


def _interval(parity: Parity) -> tuple[float, float]:
    return clopper_pearson(round(parity.agreement * parity.n), parity.n)


def table(variants: list[dict[str, Any]]) -> str:
    """Markdown: one line a variant."""
    n, sure = variants[0]["n"], variants[0]["sure"]
    head = ["variant", f"answers as the reference's, n = {n}", f"of {sure} sure ones", "logits", "state, median", "largest"]
    rows = []
    for v in variants:
        low, high = v["agreement_interval"]
        agree = f"{100 * v['agreement']:.1f} % ({100 * low:.1f} - {100 * high:.1f})"
        errors = [f"{v['logits']:.1g}", f"{v['state']:.2g}", f"{v['state_largest']:.2g}"]
        rows.append([v["file"], agree, f"{100 * v['sure_agreement']:.1f} %", *errors])
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Print the figures; exit 1 beyond 1e-3 (LRP: 1e-9)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="labelled crops with folds, for the variants")
    parser.add_argument("--cells", type=int, default=60, help="of these, so many")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    result = measure(given.models)
    variants = measure_variants(given.models, given.data, given.cells) if given.data else []
    if variants:
        print(table(variants))
    for name, row in result.items():
        print(f"{name:<6}", "  ".join(f"{what} {value:.2g}" for what, value in row.items()))
    if given.json:
        given.json.write_text(json.dumps({**result, "variants": variants}, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(any(value > (1e-9 if name == "lrp" else 1e-3) for name, row in result.items() for value in row.values()))


if __name__ == "__main__":
    main()
