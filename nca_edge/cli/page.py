"""The page at the microscope: serve."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

from pathlib import Path
from typing import Annotated

import typer

from nca_edge.cli.options import AsJson
from nca_edge.errors import UsageError
from nca_edge.terminal import print_json, say


def serve(
    session: Annotated[Path | None, typer.Option(help="Review this session, or go on with it.", metavar="DIR")] = None,
    host: Annotated[
        str, typer.Option(help="Address of this machine; another than loopback opens the page to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8765,
    cert: Annotated[Path | None, typer.Option(help="TLS certificate (PEM), with --key.", metavar="FILE")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", metavar="FILE")] = None,
    language: Annotated[str | None, typer.Option(help="en, fr, es, pt or sw; default: what the browser prefers.")] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Shut out browsers that were let in before.")] = False,
    as_json: AsJson = False,
) -> None:
    """The page: review a session in a browser, correct it, put a name to it (needs the web extra)."""
    from nca_edge.i18n import Words
    from nca_edge.web import serving
    from nca_edge.web.desk import Bell, Desk
    from nca_edge.web.house import House

    address = serving.Address(host, port, cert, key, new_token)
    serving.check(address, language)
    if session is None:
        raise UsageError("Give --session DIR, a session to review.")
    opened = serving.open_session(session, say)
    with opened:
        listening = serving.bind(address)
        door = serving.door_of(address, listening.getsockname()[1])
        desk = Desk(opened, Bell())
        house = House(desk, door, language=language, warning=serving.notice(Words(language or "en"), address, opened))
        url = serving.url_of(address, door)
        if as_json:
            print_json({"url": url})
        else:
            typer.echo(url)
        try:
            serving.serve(house, listening, address)
        finally:
            desk.close()
