"""The scale that red cells tell, on crops of a microscope whose scale is known (acevedo20: 0.225 um per pixel).

Boxes that people draw around red cells (bccd) are no such reference: they are about a tenth wider than the cells.

Usage: python tests/benchmarks/scale.py --data DIR/acevedo20 [--crops 500] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from nca_edge.camera import read_image
from nca_edge.preprocess import correct, crop_background
from nca_edge.scale import crop_scale

UM_PER_PX, VIEW_UM = 0.225, 36.0


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    with (args.data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        files = [row["file"] for row in csv.DictReader(stream) if row["label"] != "erythroblast"]
    random.Random(0).shuffle(files)
    ratios = defaultdict(list)
    for file in files[: args.crops]:
        rgb = read_image(args.data / file)
        scale = crop_scale(correct(rgb, crop_background(rgb)), VIEW_UM)
        ratios[scale.source].append(scale.um_per_px / UM_PER_PX)
    result = {
        source: {
            "crops": len(values),
            "ratio_percentiles_10_25_50_75_90": [round(float(v), 4) for v in np.percentile(values, (10, 25, 50, 75, 90))],
            "median_error": float(np.median(np.abs(np.array(values) - 1))),
        }
        for source, values in sorted(ratios.items())
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
