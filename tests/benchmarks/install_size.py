"""How much a bare installation brings.

    python tests/benchmarks/install_size.py [--from WHEEL] [--json FILE] [--bound-mb 420]

Makes an environment in a temporary folder, installs the checkout (or a wheel) into it without extras, and adds up all files
that came with it, compiled bytecode included, pip itself left out. Exit code 1 beyond the bound or where a package came along
that has no place on a board.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BANNED = ("torch", "scikit-learn", "opencv-python", "opencv-python-headless", "opencv-contrib-python", "tensorflow", "pandas")
CHECKOUT = Path(__file__).resolve().parents[2]
MB = 1_000_000

SIZES = """
import json
from importlib.metadata import distributions
sizes = {}
for dist in distributions():
    found = [dist.locate_file(file) for file in dist.files or ()]
    sizes[dist.metadata["Name"]] = [dist.version, sum(path.stat().st_size for path in found if path.is_file())]
print(json.dumps(sizes))
"""


def install(target: str, folder: Path) -> Path:
    """Make an environment in ``folder``, install ``target`` and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin/python"
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", target], check=True, env=env, stdout=sys.stderr)
    return python


def tree_bytes(folder: Path) -> int:
    """Sum of all file sizes below ``folder``; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def measure(target: str) -> dict[str, object]:
    """Install ``target`` and return what it brought."""
    with tempfile.TemporaryDirectory(prefix="nca-edge-size-") as name:
        python = install(target, Path(name) / "env")
        done = subprocess.run([str(python), "-I", "-c", SIZES], check=True, capture_output=True, text=True)
        sizes: dict[str, tuple[str, int]] = json.loads(done.stdout)
        own = sum(size for dist, (_, size) in sizes.items() if dist in ("pip", "setuptools"))
        total = tree_bytes(Path(name) / "env/lib") - own
    packages = [
        {"name": dist, "version": version, "mb": round(size / MB, 1)}
        for dist, (version, size) in sorted(sizes.items(), key=lambda item: -item[1][1])
        if dist not in ("pip", "setuptools")
    ]
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "total_mb": round(total / MB, 1),
        "packages": packages,
        "banned": [package["name"] for package in packages if str(package["name"]).lower() in BANNED],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Size of a bare installation of nca-edge.")
    parser.add_argument("--from", dest="target", default=str(CHECKOUT), help="checkout or wheel to install")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--bound-mb", type=float, default=420.0, help="largest total that passes, MB of 10^6 bytes")
    args = parser.parse_args()
    result = measure(args.target)
    result["bound_mb"] = args.bound_mb
    packages, total, banned = result["packages"], result["total_mb"], result["banned"]
    assert isinstance(packages, list) and isinstance(total, float)
    print(f"{'package':<20} {'version':<12} {'MB':>7}")
    for package in packages[:10]:
        print(f"{package['name']:<20} {package['version']:<12} {package['mb']:>7.1f}")
    print(f"{len(packages)} packages, total {total:.1f} MB, bound {args.bound_mb:.0f} MB")
    if banned:
        print(f"Has no place on a board: {', '.join(map(str, banned))}")
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if banned or total > args.bound_mb else 0


if __name__ == "__main__":
    sys.exit(main())
