"""Sentences of page and report in any language; in English they are those of ``Differential`` and ``Summary``."""

from __future__ import annotations

from nca_edge.differential import Differential
from nca_edge.flags import Flag
from nca_edge.i18n import Words
from nca_edge.session import State
from nca_edge.summary import Summary, minute


def blast_sentence(words: Words, table: Differential) -> str:
    """``Differential.blast_statement``."""
    if table.blasts is None:
        return words("blast.not_reported")
    if table.blasts:
        return words("blast.one" if table.blasts == 1 else "blast.some", k=table.blasts, n=table.leukocytes)
    if table.blast_limit is None:
        return words("blast.nothing")
    return words("blast.excluded", n=table.named, limit=words.number(table.blast_limit_up, 1))


def standing(words: Words, summary: Summary) -> str:
    """``Summary.standing``."""
    signature, (who, why) = summary.signature, summary.last
    if signature is not None:
        key = "standing.signed_again" if signature.revision > 1 else "standing.signed"
        told = {"name": signature.name, "at": minute(signature.at), "revision": signature.revision, "reason": signature.reason}
        return words(key, **told)
    looked = words("standing.looked", reviewed=summary.reviewed, to_review=summary.to_review)
    return words(f"standing.{_STATES.get(summary.state, 'review')}", who=who, why=why, looked=looked)


_STATES = {State.ABANDONED: "abandoned", State.OPEN: "open", State.COUNTING: "counting", State.AMENDED: "amended"}


def flag_sentence(words: Words, flag: Flag) -> str:
    """What a flag tells, with its count; in a laboratory's own words where it has flags of its own."""
    return words(f"flag.{flag.name}", n=flag.count) if words.knows(f"flag.{flag.name}") else f"{flag.text}: {flag.count}"
