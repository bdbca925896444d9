"""Compile the automaton's step (``nca_edge/backends/native``) into a wheel or an editable installation.

Without a C compiler the wheel is made all the same, for any machine, and runs the automaton by ONNX Runtime or LiteRT. With
``NCA_EDGE_WHEEL=x86_64`` or ``aarch64`` the wheel is made for other machines of that kind, by zig's C compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("nca_edge/backends/native")
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-s")
OTHER = os.environ.get("NCA_EDGE_WHEEL", "")
"""Machine that the wheel is for; empty: this one."""


class CompiledStep(BuildHookInterface[Any]):
    """Adds ``step.so``, and the tag of what it runs on."""

    made: Path | None = None

    def dependencies(self) -> list[str]:
        """What the build needs besides hatchling."""
        return ["ziglang"] if OTHER else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is put together."""
        self.made = Path(tempfile.mkdtemp())
        library = self.made / "step.so"
        problem = self.compile(library)
        if problem:
            if OTHER:
                raise RuntimeError(f"the compiled step cannot be made for {OTHER}: {problem}")
            self.app.display_warning(f"The compiled step is left out, other backends do its work: {problem}")
        elif version == "editable":
            shutil.copy(library, Path(self.root) / FOLDER / library.name)
        else:
            build_data["force_include"][str(library)] = str(FOLDER / library.name)
            build_data["pure_python"], build_data["tag"] = False, f"py3-none-{platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After it."""
        if self.made is not None:
            shutil.rmtree(self.made, ignore_errors=True)

    def compile(self, library: Path) -> str:
        """One line on what went wrong; empty: nothing did."""
        command = [*compiler(), *FLAGS, "-o", str(library), str(Path(self.root) / FOLDER / "step.c")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["the compiler failed"])[0]


def compiler() -> list[str]:
    """The command that compiles C."""
    if OTHER:
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{OTHER}-linux-gnu.2.17"]
    return [os.environ.get("CC") or "cc"]


def platform() -> str:
    """Tag of the machines that it runs on."""
    if OTHER:
        return f"manylinux_2_17_{OTHER}.manylinux2014_{OTHER}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
