"""Whether a folder of wheels holds all that an installation on a board asks for: what pip would find missing there, found here.

Usage: python check_wheelhouse.py FOLDER PYTHON EXTRAS, as in: check_wheelhouse.py dist/wheelhouse-raspberry-pi-5 311 camera,web

``pip download --python-version`` chooses wheels for another Python, but reads the markers of their requirements as the Python
that runs it: what only the board's Python needs is left out of the folder without a word.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(35, 16, -1)] + ["manylinux2014_aarch64", "linux_aarch64"]
"""Of glibc 2.35, the oldest among the supported systems (Ubuntu 22.04 below JetPack 6)."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file that the board's Python can install."""

    path: Path
    metadata: Metadata


class Folder:
    """The wheels of a folder, as a board with this Python sees them."""

    def __init__(self, folder: Path, python: tuple[int, int]) -> None:
        version = f"{python[0]}.{python[1]}"
        self.environment = {
            "python_version": version, "python_full_version": f"{version}.0", "implementation_name": "cpython",
            "platform_python_implementation": "CPython", "platform_machine": "aarch64", "platform_system": "Linux",
            "sys_platform": "linux", "os_name": "posix",
        }  # fmt: skip
        tags = {*cpython_tags(python, platforms=PLATFORMS), *compatible_tags(python, f"cp{python[0]}{python[1]}", PLATFORMS)}
        self.wheels: dict[str, list[Wheel]] = {}
        for path in sorted(folder.glob("*.whl")):
            if (wheel := self._usable(path, tags)) is not None:
                self.wheels.setdefault(canonicalize_name(wheel.metadata.name), []).append(wheel)

    def _usable(self, path: Path, tags: set[Tag]) -> Wheel | None:
        _name, _version, _build, own = parse_wheel_filename(path.name)
        if not own & tags:
            return None
        with zipfile.ZipFile(path) as archive:
            (file,) = (entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA") and entry.count("/") == 1)
            metadata = Metadata.from_email(archive.read(file), validate=False)
        wanted = metadata.requires_python
        return Wheel(path, metadata) if wanted is None or self.environment["python_full_version"] in wanted else None

    def missing(self, root: Requirement) -> Iterator[str]:
        """One sentence for each requirement that no wheel meets, from ``root`` on through all that its wheels ask for."""
        waiting, seen = [(root, "you")], set()
        while waiting:
            asked, by = waiting.pop()
            if str(asked) in seen:
                continue
            seen.add(str(asked))
            found = [w for w in self.wheels.get(canonicalize_name(asked.name), []) if self._meets(w, asked)]
            if not found:
                yield f"{asked.name}{asked.specifier} is missing; {by} ask{'' if by == 'you' else 's'} for it"
                continue
            best = max(found, key=lambda w: w.metadata.version)
            waiting += [(r, best.metadata.name) for r in best.metadata.requires_dist or () if self._applies(r, asked.extras)]

    @staticmethod
    def _meets(wheel: Wheel, asked: Requirement) -> bool:
        return asked.specifier.contains(wheel.metadata.version, prereleases=True)

    def _applies(self, requirement: Requirement, extras: set[str]) -> bool:
        marker = requirement.marker
        return marker is None or any(marker.evaluate({**self.environment, "extra": extra}) for extra in ("", *extras))


def main() -> None:
    """Print what is missing; exit 1 where something is."""
    folder, python, extras = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    version = (int(python[0]), int(python[1:]))
    missing = list(Folder(folder, version).missing(Requirement(f"nca-edge[{extras}]")))
    for sentence in missing:
        print(f"{folder}: for Python {version[0]}.{version[1]}, {sentence}.", file=sys.stderr)
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
