"""README's commands run as they stand, and every command is documented."""

import re
import shlex
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from nca_edge.bench import command, peak
from nca_edge.bundle import shipped_models
from nca_edge.cli import app
from nca_edge.samples import sample_fields

ROOT = Path(__file__).parents[2]


def commands() -> list[list[str]]:
    block = re.search(r"## Use it\n\n```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block
    lines = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    return [line[1:] for line in lines if line[0] == "nca-edge"]


@pytest.mark.usefixtures("own_state")  # bench remembers what was quickest
def test_readme_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fields").mkdir()
    field = sample_fields() / "bccd-BloodImage_00209.jpg"
    shutil.copy(field, tmp_path / "fields")
    for folder in ("crops", "labelled/neutrophil", "labelled/artefact"):
        (tmp_path / folder).mkdir(parents=True)
        with Image.open(field) as image:
            image.crop((300, 230, 466, 394)).save(tmp_path / folder / "one.png")
    shutil.copytree(shipped_models() / "edge", tmp_path / "usb" / "edge")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for module, name, value in ((peak, "ENOUGH_S", 1e-3), (command, "CELL_S", 0.01)):
        monkeypatch.setattr(module, name, value)  # the benchmark measures, but not for long: one field
    monkeypatch.setattr(command, "sample_fields", lambda: tmp_path / "fields")
    listed = commands()
    assert len(listed) >= 8
    for arguments in listed:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"nca-edge {shlex.join(arguments)}: {result.output}{result.exception}"
    assert (tmp_path / "sessions/fields-1/report.html").is_file() and (tmp_path / "masks/one.png").is_file()


def test_every_command_is_documented_and_has_help() -> None:
    pages = "".join((ROOT / page).read_text("utf-8") for page in ("README.md", "train/README.md", "export/README.md"))
    for registered in app.registered_commands:
        assert registered.callback and registered.callback.__doc__
        assert f"nca-edge {registered.callback.__name__}" in pages, f"{registered.callback.__name__} is in no README"


def test_the_figures_are_those_of_the_results_files() -> None:
    spec = spec_from_file_location("figures", ROOT / "tests" / "benchmarks" / "figures.py")
    assert spec and spec.loader
    figures = module_from_spec(spec)
    spec.loader.exec_module(figures)
    written = figures.BLOCK.search((ROOT / "README.md").read_text("utf-8"))
    assert written and written[0].splitlines()[1:-1] == figures.table().splitlines()
    masks = figures.MASKS.search((ROOT / "train" / "README.md").read_text("utf-8"))
    assert masks and masks[0].splitlines()[1:-1] == figures.mask_table().splitlines()
