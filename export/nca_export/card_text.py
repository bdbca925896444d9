"""What a model card says (Mitchell et al. 2019, FAT*), section by section; every number in it comes from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nca_edge import RESEARCH_USE
from nca_edge.bundle import Manifest
from nca_edge.differential import clopper_pearson
from nca_edge.errors import UsageError
from nca_edge.terminal import printable
from nca_export.card_runs import again, cost
from nca_export.card_source import Source
from nca_export.card_table import percent, table
from nca_export.card_trust import explanations
from nca_train.store import FACTS

CONFUSION, COVERAGE, MISTAKES = "card-confusion.png", "card-coverage.png", "card-mistakes.png"
NOT_NAMED = {"myeloblast": "blasts", "lymphocyte_atypical": "atypical lymphocytes", "smudge_cell": "smudge cells"}
"""Cells that a reader expects; a model without these classes calls them something else."""


def within(share: float, low: float, high: float) -> str:
    """A share and its 95 % interval."""
    return f"{percent(share)} ({100 * low:.1f} - {100 * high:.1f})"


def counted(k: int, n: int) -> str:
    """k of n as a share, with its interval and n."""
    return f"{within(k / n, *clopper_pearson(k, n))}, n = {n:,}" if n else "no cells"


def plain(value: float, low: float, high: float) -> str:
    """A figure that is no share, and its 95 % interval."""
    return f"{value:.3f} ({low:.3f} - {high:.3f})"


def _named(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _use(s: Source) -> str:
    unnamed = [words for name, words in NOT_NAMED.items() if name not in s.bundle.manifest.classes]
    lacks = f" It has no class for {', '.join(unnamed)}: each of these gets the name of another class." if unnamed else ""
    return (
        "For research on reading stained blood smears offline: the model proposes a name for each white cell that a microscope "
        "shows, with a confidence and a reason, and a qualified person looks at what it proposes.\n\n"
        "Not for diagnosis, treatment, screening or counts that nobody checks; not for bone marrow, other body fluids, "
        f"animals, or smears without a Romanowsky-type stain.{lacks}"
    )


def _model(s: Source) -> str:
    m = s.bundle.manifest
    a = m.architecture
    groups = "; ".join(f"{group}: {_named(members)}" for group, members in m.groups.items())
    kinds = [f"{f.name} ({f.backend}, {f.precision})" for f in m.files if f.backend]
    sizes = f"{a.grid} x {a.grid} grid cells of {a.fold} x {a.fold} pixels, {a.channels} channels, hidden layer {a.hidden}"
    return table(("", ""), [
        ("Kind", f"neural cellular automaton: {sizes}, {a.steps} steps ({a.update}), {a.pool} pool, head {a.head}"),
        ("Parameters", f"{a.parameters:,}"),
        ("Work", f"{a.macs / 1e9:.3g} GMAC for one look at a cell{_looks(m)}"),
        ("View", f"{m.view_um:g} um a side around the cell, seen at {a.size} x {a.size} pixels"),
        ("Answers", f"{len(m.classes)} classes: {_named(m.classes)}"),
        ("Groups of the differential", groups or "none"),
        ("Unsure", f"a cell of less confidence than {m.unsure_below:g} (logits are divided by {m.temperature:.3f} first)"),
        ("Files", ", ".join(["weights.npz (numpy, fp32)", *kinds])),
        ("SHA-256 of the manifest", s.bundle.sha256),
        ("Made with", ", ".join(f"{name} {version}" for name, version in m.versions.items())),
    ])  # fmt: skip


def _looks(m: Manifest) -> str:
    """What more a cell may cost."""
    if m.passes == 1:
        return ""
    most = m.passes * m.architecture.macs / 1e9
    return f"; {m.passes} looks, {most:.3g} GMAC, where the first is less than {m.more_passes_below:g} sure"


def _data(s: Source) -> str:
    m = s.bundle.manifest
    rows = [(d["name"], d["licence"], d["used_for"]) for d in m.data]
    owed = "\n".join(f"- {printable(d['name'])}: {printable(d['attribution'])}" for d in m.data)
    sources = f"{table(('Source', 'Licence', 'Used for'), rows)}\n\n{owed}" if rows else "The recipe names no source."
    return (
        f"{sources}\n\n{m.training['cells']:,} images were trained on. Fold {m.metrics['validation_fold']} was "
        "not: figures are of its "
        f"half {m.metrics['half']}. The split is {m.metrics['split']}. Cells of one patient may therefore lie on both sides of "
        "it, and how often the model is right on a patient it has never seen is unknown."
    )


def _home(s: Source) -> str:
    w, everything, learnt = s.white, s.bundle.manifest.metrics["all_classes"], s.bundle.manifest.training["cells_per_class"]
    sure = round(w["coverage"] * w["n"])
    said = counted(round((w["accuracy_when_sure"] or 0) * sure), sure)
    figures = [
        ("Accuracy", within(w["accuracy"], w["accuracy_low"], w["accuracy_high"])),
        ("Macro-F1", plain(w["macro_f1"], *w["macro_f1_interval"])),
        ("Calibration error (15 bins)", plain(w["calibration_error"], *w["calibration_error_interval"])),
        ("Answered, not unsure", f"{percent(w['coverage'])} of the cells"),
        ("Accuracy of these", said),
        ("Accuracy with artefacts", counted(round(everything["accuracy"] * everything["n"]), everything["n"])),
    ]
    classes = [
        (_named([c["name"]]), f"{learnt.get(c['name'], 0):,}", f"{c['n']:,}", percent(c["recall"]),
         f"{100 * c['low']:.1f} - {100 * c['high']:.1f}", percent(c["precision"]))
        for c in w["classes"]
    ]  # fmt: skip
    return "\n\n".join([
        f"{s.where}, n = {w['n']:,}; in brackets 95 % intervals over cells, which say nothing of other patients or clinics.",
        table(("", ""), figures),
        table(("Class", "trained on", "n", "recall", "95 % interval", "precision"), classes),
        f"![Confusion matrix]({CONFUSION})", f"![Accuracy against the share of cells answered]({COVERAGE})", _program(s),
    ])  # fmt: skip


def _program(s: Source) -> str:
    if "validation.json" not in s.results:
        return f"As the program reads images: {s.missing('validation.json')}"
    r = s.results["validation.json"]
    scales = ", ".join(f"{source.replace('_', ' ')} for {n:,}" for source, n in r["scale_sources"].items())
    other = "" if r["n"] == s.white["n"] else " These are not the same cells as in the table."
    right = within(r["accuracy"], r["accuracy_low"], r["accuracy_high"])
    return f"As the program reads images ({r['backend']} {r['precision']}; scale: {scales}): {right}, n = {r['n']:,}.{other}"


def _clinics(s: Source) -> str:
    if "clinics.json" not in s.results:
        return s.missing("clinics.json")
    groups, sets = s.results["clinics.json"]["groups"], s.results["clinics.json"]["sets"]
    rows = [("all", *(f"{within(r['accuracy'], *r['interval'])}, n = {r['n']:,}" for r in sets))]
    rows += [(group, *(counted(r["confusion"][i][i], sum(r["confusion"][i])) for r in sets)) for i, group in enumerate(groups)]
    rows += [("called artefact", *(counted(r["artefact"], r["n"]) for r in sets))]
    return (
        "Cells of clinics that no pixel of the training comes from, each cut out by a person, no scale given: how often the "
        "best of the five groups is right. Last row: how often the best of all classes was the artefact.\n\n"
        + table(("", *(r["set"] for r in sets)), rows)
    )


def _stability(s: Source) -> str:
    if "schedules.json" not in s.results:
        return s.missing("schedules.json")
    r = s.results["schedules.json"]
    span: Callable[[list[float]], str] = lambda values: f"{percent(min(values))} to {percent(max(values))}"  # noqa: E731
    rows = [
        (one["set"], "estimated" if one["um_per_px"] is None else f"{one['um_per_px']:g} um/px",
         counted(round(one["accuracy"][0] * one["n"]), one["n"]), span(one["accuracy"][1:]), span(one["changed"]),
         percent(one["changed_pairs"]))
        for one in r["sets"]
    ]  # fmt: skip
    head = ("Set", "scale", "accuracy", "under other schedules", "answers changed", "between any two")
    return (
        "The automaton updates its grid cells in a fixed, randomly drawn order (its schedule). The same cells under "
        f"{len(r['seeds'])} other schedules:\n\n{table(head, rows)}\n\nWhere the scale is estimated from the image instead of "
        f"given, {within(r['changed_by_scale'], *r['changed_by_scale_interval'])} of the answers change."
    )


def _failures(s: Source) -> str:
    frequent = confusions(s.white)[:6]
    if not frequent:
        return f"None of the {s.white['n']:,} white cells of half b was given a wrong name."
    rows = [(_named([truth]), _named([answer]), f"{n:,}") for n, truth, answer in frequent]
    text = "The most frequent confusions of half b:\n\n" + table(("Labelled", "answered", "cells"), rows)
    if s.mistakes is None:
        return f"{text}\n\nPictures of mistakes: make this card with `--data` and the images that the model was trained on."
    if not s.mistakes:
        return text
    return f"{text}\n\nThe most confident mistakes, at most two of one confusion:\n\n![Mistakes]({MISTAKES})\n\n{credit(s)}"


def confusions(white: dict[str, Any]) -> list[tuple[int, str, str]]:
    """(cells, true class, answer) of a confusion matrix off its diagonal, the most frequent first."""
    labels = white["labels"]
    found = [
        (count, labels[truth], labels[answer])
        for truth, row in enumerate(white["confusion"])
        for answer, count in enumerate(row)
        if count and truth != answer
    ]
    return sorted(found, key=lambda item: -item[0])


def credit(s: Source) -> str:
    """Whose images the sheet shows: those of the first source, which the labelled cells come from."""
    first = s.bundle.manifest.data[0]
    return f"Images: {printable(first['attribution'])} Licence: {printable(first['licence'])}; resized, otherwise unchanged."


def _limits(s: Source) -> str:
    first = s.bundle.manifest.data[0]["name"] if s.bundle.manifest.data else "one data set"
    return "\n".join([
        f"- The named white cells it learnt from are those of {printable(first)}: one hospital, one stain family, one kind of "
        "camera. Elsewhere it may do far worse: see Other clinics, and measure it on your own slides first.",
        "- Without patient identifiers nobody can tell how it does by patient, age, sex, origin or disease.",
        "- Labels are people's opinions; neighbouring stages of one lineage are confused by people too.",
        "- An unsure cell goes to a person, and so does every rare or abnormal one: a confident answer can be wrong.",
        "- A wrong count can harm a patient. No result may be used for one without a qualified person's review of the slide.",
    ])  # fmt: skip


SECTIONS: tuple[tuple[str, Callable[[Source], str], str], ...] = (
    ("Intended use", _use, "manifest.json"),
    ("Model", _model, "manifest.json"),
    ("Data", _data, "manifest.json"),
    ("Results at home", _home, "manifest.json or validation.json"),
    ("Other clinics", _clinics, "clinics.json"),
    ("Stability", _stability, "schedules.json"),
    ("Explanations", explanations, "explanations.json"),
    ("Known failures", _failures, "manifest.json"),
    ("Training cost", cost, FACTS),
    ("Limits and ethical notes", _limits, "manifest.json"),
    ("How to reproduce", again, FACTS),
)


def compose(s: Source) -> str:
    """The whole card.

    Raises
    ------
    UsageError
        A file does not hold what its section tells.
    """
    parts = [f"# Model card: {s.bundle.manifest.name}", f"**{RESEARCH_USE}**"]
    for title, write, file in SECTIONS:
        try:
            parts.append(f"## {title}\n\n{write(s)}")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__} {error}"
            raise UsageError(f"{file} is not as this program writes it ({reason}); write it again for {title!r}.") from error
    return "\n\n".join(parts) + "\n"
