"""The page in a real Chromium: how late it shows a new cell, what the server weighs, what a session asks of the operator.

    python tests/benchmarks/page.py [--fields DIR] [--cells 40] [--json FILE]

| measure | bound |
|---|---|
| from a field's commit to its cells on the screen, median | 300 ms |
| memory of the server, model loaded, 400 cells, every page visited, peak | 300 MB |
| operator inputs of a clean session of 100 cells, without the cells of the review | 15 |

The delay is that of cells which a live count commits while the simulated microscope pans over the fields of DIR (default: the
sample fields): from the server's clock when the commit returned to the browser's, on the same machine, when the new pictures
are decoded and the frame that shows them is drawn. An input is one key, or one name typed. Needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "browser"), str(CHECKOUT / "tests" / "runtime")]

from eyes import Eyes, chromium  # noqa: E402 (found where the tests keep them)
from pages import Browser, make_session, served  # noqa: E402

from nca_edge.session import Session  # noqa: E402

RECORD = """
window.seen = [];
const Source = window.EventSource;
let changed = 0;
window.EventSource = class extends Source {
  set onmessage(hear) {
    super.onmessage = (event) => { changed = JSON.parse(event.data).changed_ms; hear(event); };
  }
};
document.addEventListener("DOMContentLoaded", () => {
  const part = document.getElementById("part");
  if (!part) return;
  let shown = new Set([...part.querySelectorAll(".tile")].map((tile) => tile.dataset.cell));
  new MutationObserver(async () => {
    const since = changed;
    const tiles = [...part.querySelectorAll(".tile")];
    const fresh = tiles.filter((tile) => !shown.has(tile.dataset.cell));
    shown = new Set([...shown, ...tiles.map((tile) => tile.dataset.cell)]);
    if (!fresh.length) return;
    await Promise.all(fresh.map((tile) => tile.querySelector(".crop").decode()));
    requestAnimationFrame(() => setTimeout(() => window.seen.push(Date.now() - since), 0));
  }).observe(part, { childList: true });
});
"""
BOUNDS = {"delay_ms": 300.0, "memory_mb": 300.0, "inputs": 15}


def delays(eyes: Eyes, folder: Path, source: str, cells: int) -> dict[str, Any]:
    """Delay of new cells while a live count runs, ms."""
    eyes.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": RECORD})
    with served(source, "--out", folder, "--operator", "A", "--threads", 1) as page:
        eyes.driver.get(page.url)
        end = time.monotonic() + 300
        while eyes.run("window.seen.length") < cells and time.monotonic() < end:
            if eyes.run("document.getElementById('lamp').dataset.field") == "stopped":
                break
            time.sleep(1)
        seen = sorted(eyes.run("window.seen"))
    return {
        "median_ms": statistics.median(seen),
        "p90_ms": seen[int(0.9 * len(seen))],
        "largest_ms": seen[-1],
        "fields": len(seen),
    }


def memory(eyes: Eyes, folder: Path) -> dict[str, Any]:
    """Memory of a server that counts on in a session of 400 cells, MB of 10^6 bytes."""
    make_session(folder, 100, "A")
    with served("test:", "--session", folder) as page:
        eyes.driver.get(page.url)
        eyes.until("document.getElementById('live').naturalWidth > 0", seconds=60)
        paths = ["/", "/cells", *(f"/cells?page={n}" for n in range(2, 18)), "/queue", "/sign", "/report", "/file/cells.csv"]
        for path in paths:
            if path.startswith(("/report", "/file")):
                assert page.ask("GET", path).status == 200
            else:
                eyes.driver.get(f"http://{page.place}{path}")
                eyes.until(
                    "[...document.querySelectorAll('.crop')].every((image) => image.complete)"
                )  # outlines load when shown
        peak, now = _status(page, "VmHWM"), _status(page, "VmRSS")
    with Session.open(folder, read_only=True) as session:
        return {"peak_mb": peak, "last_mb": now, "cells": sum(1 for _ in session.cells())}


def _status(page: Browser, name: str) -> float:
    lines = Path(f"/proc/{page.process.pid}/status").read_text("ascii").splitlines()
    kilobytes = next(line for line in lines if line.startswith(name)).split()[1]
    return int(kilobytes) * 1024 / 1e6


def inputs(eyes: Eyes, folder: Path) -> dict[str, Any]:
    """Keys of a session of 100 cells, from its first page to the signature."""
    make_session(folder, 25, "Amina Otieno")
    pressed = alone = 0
    with served("--session", folder) as page:
        eyes.driver.get(page.url)

        def press(key: str, then: str) -> None:
            nonlocal pressed
            pressed += 1
            eyes.keys(key)
            eyes.until(then)

        press("q", "location.pathname === '/queue'")
        while eyes.run("document.querySelector('.palette') !== null"):
            alone += 1
            cell = eyes.run("document.querySelector('.palette button').dataset.json")
            eyes.keys("4")
            eyes.until("document.querySelector('.palette button')?.dataset.json !== arguments[0]", cell)
        press("\ue007", "location.pathname === '/cells'")  # Enter: on to the remaining cells
        while eyes.run("document.querySelector('[data-do=accept]') !== null"):
            left = eyes.run("document.querySelector('.filter span').innerText")
            pressed += 1
            eyes.keys("a")
            eyes.until("document.querySelector('.filter span').innerText !== arguments[0]", left)
        press("f", "location.pathname === '/sign'")
        press("\ue007", "document.querySelector('.statement.done') !== null")
    with Session.open(folder, read_only=True) as session:
        signed, cells = session.signature is not None, sum(1 for _ in session.cells())
    return {"inputs": pressed, "cells": cells, "looked_at_alone": alone, "signed": signed}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=Path, help="folder of fields for the simulated microscope; default: the samples")
    parser.add_argument("--cells", type=int, default=40, help="fields with new cells to wait for")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    source = f"test:{asked.fields.resolve() if asked.fields else ''}?once=1&fps=15"
    with tempfile.TemporaryDirectory() as place, chromium(Path(place)) as eyes:
        os.environ["XDG_STATE_HOME"] = place
        eyes.size("desk")
        found = {
            "inputs": inputs(eyes, Path(place) / "inputs"),
            "memory": memory(eyes, Path(place) / "memory"),
            "delay": delays(eyes, Path(place) / "delay", source, asked.cells),
        }
    value = {
        "delay_ms": found["delay"]["median_ms"],
        "memory_mb": found["memory"]["peak_mb"],
        "inputs": found["inputs"]["inputs"],
    }
    result = {
        "machine": f"{os.cpu_count()}-core {platform.machine()}", "load_average": os.getloadavg()[0], "bounds": BOUNDS,
        "value": value,
        "fields_of": asked.fields.name if asked.fields else "samples", **found,
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n", "utf-8")
    return 0 if found["inputs"]["signed"] and all(value[name] <= bound for name, bound in BOUNDS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
