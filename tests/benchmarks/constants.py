"""How much finding cells depends on each of its constants, and what becomes of a set that none of them was chosen on.

Usage: python tests/benchmarks/constants.py --data DIR [--every 3] [--json FILE]

The constants of nca_edge/detect were chosen while looking at fields of both sets. Here each is made a fifth smaller and larger.
Then, for each set, every constant takes the one of its three values that finds cells best on the OTHER set (matches over the
mean of true and found cells; the present value where it is as good), and the set is measured with these: as if it had been left
out of the choice. What is found is compared with the present constants on the same fields.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from detection import match, read_truth
from PIL import Image

from nca_edge import detect
from nca_edge.detect import cells, contrast, joining, waist
from nca_edge.preprocess import correct, field_background
from nca_edge.scale import red_cells

SETS = ("bccd", "chula")
FACTORS = (0.8, 1.2)
PRESENT = "present"
CONSTANTS: dict[str, ModuleType] = {
    "PX_PER_UM": detect, "CUT_UM": detect, "SEED_CONTRAST": contrast, "DARKEST": contrast, "OF_DARKEST": contrast,
    "NUCLEUS_UM2": cells, "LOBE_UM2": cells, "CELL_SPAN_UM": cells, "ROUND": cells, "CYTOPLASM_UM": cells,
    "BLUE_PER_RED_GREEN": cells,
    "LOBE_AREA_UM2": joining, "GAP_UM": joining, "SPAN_UM": joining, "COVERED": joining,
    "WAIST_SPAN_UM": waist, "WAIST_ROUND": waist,
}  # fmt: skip
Values = dict[str, float]
"""Constant -> factor by which it is multiplied; both ends of a range are."""


def times(value: Any, factor: float) -> Any:
    return tuple(factor * v for v in value) if isinstance(value, tuple) else factor * value


def counts(data: Path, name: str, every: int, variants: dict[str, Values]) -> dict[str, Counter[str]]:
    """True, found and matched cells of one set under each variant."""
    own = {constant: getattr(module, constant) for constant, module in CONSTANTS.items()}
    tallies: dict[str, Counter[str]] = {label: Counter() for label in variants}
    truth = read_truth(data / name)
    files = sorted(truth)
    random.Random(0).shuffle(files)
    for file in files[::every]:
        rgb = np.asarray(Image.open(data / name / file).convert("RGB"))
        corrected = correct(rgb, field_background(rgb))
        red = red_cells(corrected)
        for label, values in variants.items():
            for constant, factor in values.items():
                setattr(CONSTANTS[constant], constant, times(own[constant], factor))
            found = detect.white_cells(corrected, red, None)
            for constant in values:
                setattr(CONSTANTS[constant], constant, own[constant])
            matched = len(match(found, truth[file][0]))
            tallies[label].update(fields=1, true=len(truth[file][0]), found=len(found), matched=matched)
    return tallies


def goodness(tally: Counter[str]) -> float:
    return 2.0 * tally["matched"] / max(tally["true"] + tally["found"], 1)


def shown(tally: Counter[str]) -> dict[str, Any]:
    return {
        **tally,
        "recall": tally["matched"] / max(tally["true"], 1),
        "precision": tally["matched"] / max(tally["found"], 1),
    }


def best(tallies: dict[str, Counter[str]]) -> Values:
    """Of each constant the factor that is better than 1, if one is."""
    chosen = {}
    for constant in CONSTANTS:
        factor = max(FACTORS, key=lambda f: goodness(tallies[f"{constant} x {f}"]))
        if goodness(tallies[f"{constant} x {factor}"]) > goodness(tallies[PRESENT]):
            chosen[constant] = factor
    return chosen


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    variants: dict[str, Values] = {PRESENT: {}}
    variants |= {f"{constant} x {factor}": {constant: factor} for constant in CONSTANTS for factor in FACTORS}
    table = {name: counts(args.data, name, args.every, variants) for name in SETS}
    for label in variants:
        r = {name: shown(table[name][label]) for name in SETS}
        print(f"{label:<26}" + "".join(f" {name} {r[name]['recall']:.3f} / {r[name]['precision']:.3f} " for name in SETS))
    left_out = {}
    for name, other in (SETS, SETS[::-1]):
        values = best(table[other])
        tally = counts(args.data, name, args.every, {"chosen": values})["chosen"]
        left_out[name] = {"chosen_on": other, "factors": values, "present": shown(table[name][PRESENT]), **shown(tally)}
        r = left_out[name]
        print(f"{name}, constants chosen on {other} {values}: recall {r['recall']:.3f}, precision {r['precision']:.3f}")
    if args.json:
        result = {"every": args.every, "table": {n: {k: shown(v) for k, v in t.items()} for n, t in table.items()}}
        args.json.write_text(json.dumps(result | {"left_out": left_out}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
