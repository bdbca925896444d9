"""What the quality gate lets through and what it refuses: real fields as they are, and fields that were spoilt on purpose.

Usage: python tests/benchmarks/gate.py --data DIR --other FOLDER [--json FILE]
DIR holds bccd and chula. FOLDER holds pictures that are no smears: skimage/data of the scikit-image 0.25.2 wheel (unpacked, it
need not be installed). The thresholds of the gate were chosen on the fields of even number in order of name; all here are of
odd number. spoilt_fields.csv says which field is spoilt how, how much (units in spoil.py) and with which seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from detection import interval, read_truth
from PIL import Image
from spoil import spoilt

from nca_edge.preprocess import correct, field_background
from nca_edge.quality import assess, assess_smear
from nca_edge.records import Image8, Quality
from nca_edge.scale import red_cells

LIST = Path(__file__).parent / "spoilt_fields.csv"
SETS = ("bccd", "chula")
GOOD_A_SET = 100
MOST = 0.05
"""Good fields that may be rejected, and spoilt ones that may pass."""


def judged(rgb: Image8) -> Quality:
    """As the pipeline judges a field."""
    corrected = correct(rgb, field_background(rgb))
    quality = assess(rgb, corrected)
    return assess_smear(quality, red_cells(corrected)) if quality.accepted else quality


def reason(quality: Quality) -> str:
    """The fault alone, without what to do about it."""
    return quality.reasons[0].split(":")[0] if quality.reasons else "accepted"


def good_fields(data: Path, name: str) -> list[str]:
    """Fields of one set, as they are."""
    files = sorted(read_truth(data / name))[1::2]
    return sorted(random.Random(0).sample(files, min(GOOD_A_SET, len(files))))


def read(path: Path) -> Image8:
    return np.asarray(Image.open(path).convert("RGB"))


def counted(answers: list[tuple[str, str]], wrong: bool) -> dict[str, Any]:
    """How many were accepted (``wrong``) or rejected (else), and what was said of each kind."""
    table: dict[str, Counter[str]] = {}
    for kind, answer in answers:
        table.setdefault(kind, Counter())[answer] += 1
    misses = sum((answer == "accepted") == wrong for _, answer in answers)
    share = misses / max(len(answers), 1)
    return {"n": len(answers), "wrong": misses, "share": share, "interval": interval(misses, len(answers)), "answers": table}


def main() -> int:
    """Run and print; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True, help="folder of pictures that are no smears")
    parser.add_argument("--every", type=int, default=1, help="take every n-th of both lists")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    good = [
        (name, reason(judged(read(args.data / name / file))))
        for name in SETS
        for file in good_fields(args.data, name)[:: args.every]
    ]
    bad, passed = [], []
    with LIST.open(newline="", encoding="utf-8") as stream:
        for row in list(csv.DictReader(stream))[:: args.every]:
            if row["degradation"] == "other":
                rgb = read(args.other / row["file"])
            else:
                rgb = spoilt(read(args.data / row["file"]), row["degradation"], float(row["strength"]), int(row["seed"]))
            bad.append((row["degradation"], reason(judged(rgb))))
            print(*row.values(), bad[-1][1], file=sys.stderr, flush=True)
            if bad[-1][1] == "accepted":
                passed.append(row)
    result = {"good_rejected": counted(good, False), "bad_passed": counted(bad, True), "passed": passed}
    for name in ("good_rejected", "bad_passed"):
        r = result[name]
        print(f"{name}: {r['wrong']} of {r['n']} ({100 * r['interval'][0]:.1f} - {100 * r['interval'][1]:.1f} %)")
        for kind, answers in r["answers"].items():
            print(f"  {kind:<10} " + ", ".join(f"{n} {answer}" for answer, n in answers.most_common()))
    for row in passed:
        print("  passed:", *row.values())
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(max(result["good_rejected"]["share"], result["bad_passed"]["share"]) > MOST)


if __name__ == "__main__":
    sys.exit(main())
