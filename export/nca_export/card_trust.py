"""What a model card says of the explanations."""

from __future__ import annotations

from typing import Any

from nca_export.card_source import Source
from nca_export.card_table import percent, table

FILE = "explanations.json"
ROWS = (
    ("Deletion: area under the curve against random order, strongest channels first", "deletion", "ratio"),
    ("The same, channels in the order of their absolute relevance", "deletion", "ratio_relevance_first"),
    ("The same, channels in the order of their relevance with its sign", "deletion", "ratio_speaking_first"),
    ("Insertion: area against random order, strongest channels first", "insertion", "ratio"),
)
SHARES = (
    ("Positive relevance that peaks in a grid cell which the mask touches", "peaks", "inside"),
    ("The same, where the middle of the grid cell is in the mask", "peaks", "center"),
    ("Ten strongest channels that stay under rotation", "overlap", "rotation"),
    ("... under flip", "overlap", "flip"),
    ("... under a small change of stain", "overlap", "stain"),
    ("... under another fire schedule", "overlap", "fire"),
    ("... between float32 and int8", "overlap", "precision"),
    ("Cells flagged: named right", "flagged", "right"),
    ("Cells not flagged: named right", "flagged", "others_right"),
)

SEVERAL = (
    ("positive relevance that peaks in a grid cell which the mask touches", "peaks", "inside"),
    ("ten strongest channels that stay under rotation", "overlap", "rotation"),
    ("... under flip", "overlap", "flip"),
    ("... under a small change of stain", "overlap", "stain"),
)
"""Of the explanations that `classify --explain` shows; the other rows are of those that a session keeps."""


def explanations(s: Source) -> str:
    """The section: what evaluate --explanations found."""
    if FILE not in s.results:
        return s.missing(FILE)
    r = s.results[FILE]
    kinds = [kind for kind in ("fp32", "int8") if kind in r]
    first: dict[str, Any] = r[kinds[0]]
    rows = [(words, *(f"{r[kind][part][key]:.2f}" for kind in kinds)) for words, part, key in ROWS]
    rows += [(words, *(percent(r[kind][part][key]) for kind in kinds)) for words, part, key in SHARES]
    looks = first["several"]["looks"]
    rows += [(f"From {looks} looks: deletion", *(f"{r[kind]['several']['deletion']['ratio']:.2f}" for kind in kinds))]
    rows += [
        (f"From {looks} looks: {words}", *(percent(r[kind]["several"][part][key]) for kind in kinds))
        for words, part, key in SEVERAL
    ]
    flagged = ", ".join(f"{r[kind]['flagged']['n']:,} in {kind}" for kind in kinds)
    tried, mask = first["overlap"]["n"], percent(first["peaks"]["mask"])
    return (
        f"Half b of fold {str(r['fold'])[0]}, n = {first['n']:,}; changes were tried on {tried:,} of these cells.\n\n"
        f"{table(('', *kinds), rows)}\n\n"
        f"A session keeps the explanation of the looks that gave the answer, {first['looks']:.1f} on the mean; `classify "
        f"--explain` shows that of all {looks}, turned and mirrored, whose top channels stay by construction.\n\n"
        "The strongest channels are those whose relevance is large whichever way the cell lies: each hidden unit of the head "
        "counts by the chance that it is on.\n\n"
        f"A channel is taken away by setting it to its mean over {first['baseline']}; a curve watches the probability of the "
        f"class that was named, and the order matters where it is below 1. Masks took {mask} of the view. Flagged, since more "
        f"than half of what spoke for the class peaks outside the cell, were {flagged}: this tells where the model looked, "
        "not whether it is wrong."
    )
