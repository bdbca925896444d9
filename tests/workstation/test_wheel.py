"""The wheel where no C compiler is, and the C source under the compiler's sharpest eye."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEP = ROOT / "nca_edge/backends/native/step.c"


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_for_any_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    environment = {**os.environ, "CC": "/no/compiler"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_step_compiles_without_a_warning() -> None:
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = subprocess.run(["cc", *flags, str(STEP)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="no C compiler")
def test_the_step_stays_within_its_memory(tmp_path: Path) -> None:
    """With the address sanitizer, on grids smaller than a pass, odd ones, and channels that are no multiple of a chunk."""
    library = tmp_path / "step.so"
    flags = ["-std=gnu11", "-O1", "-g", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    made = subprocess.run(
        ["cc", *flags, "-o", str(library), str(STEP)], capture_output=True, text=True, timeout=300, check=False
    )
    asan = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    if made.returncode or not Path(asan).is_absolute():
        pytest.skip("this compiler brings no address sanitizer")
    environment = {**os.environ, "LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    command = [sys.executable, "-c", ASKED, str(library)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


ASKED = """
import io, json, sys
from pathlib import Path
import numpy as np
from nca_edge.automaton import Architecture, draw_fire, pack_fire
from nca_edge.backends.native import NativeBackend, library
from nca_edge.backends.native.graph import shapes

library.FILE = Path(sys.argv[1])
if library.missing():
    sys.exit()
rng = np.random.default_rng(0)
for grid, fold, channels, hidden, update in (
    (2, 1, 4, 1, "half-lattice"), (3, 1, 64, 64, "bernoulli"), (9, 1, 65, 70, "bernoulli"), (12, 2, 13, 130, "half-lattice"),
):
    a = Architecture(grid, fold, channels, hidden, 3, "max", update, 4, 3)
    facts = np.array([json.dumps({"architecture": a.to_json(), "mask_step": 2})])
    arrays = {"facts": facts, "fire": pack_fire(a, draw_fire(a, 1))}
    for name, (kind, shape) in shapes(a).items():
        numbers = rng.integers(-127, 128, shape) if kind is np.int8 else rng.uniform(0.01, 0.05, shape)
        arrays[name] = numbers.astype(kind)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    number = 0
    while library.load().nca_choose(number) is not None:
        backend = NativeBackend("graph", stream.getvalue(), a, 1, 2)
        backend(rng.normal(0, 1, (2, a.size, a.size, 3)).astype(np.float32))
        number += 1
"""
