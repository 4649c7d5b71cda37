"""The exports of a run as HTML: what each is, what was checked, where it lies, a link to get it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from core.export.formats import formats
from core.export.reports import Export, list_exports
from core.workspace import RunFolder
from webui import messages


def exports(run: RunFolder) -> str:
    """Every finished export of a run, newest first."""
    cards = [_card(item) for item in list_exports(run.root) if item.state == "finished"]
    if not cards:
        return messages.empty(
            "No export yet",
            "An export is loaded again and compared with the trained model before it is offered.",
        )
    return f"<h3>Exports</h3>{''.join(cards)}"


def _card(item: Export) -> str:
    known = formats().get(item.format)
    title = known.title if known else item.format
    checks = "".join(_check(check) for check in item.checks)
    source = "finished model" if item.checkpoint == "final" else item.checkpoint
    when = datetime.fromtimestamp(item.created_at).strftime("%d %b %H:%M")
    told = f"{source}, {when}, {messages.size(item.size_bytes)}."
    place = messages.escape(item.path) if item.path else "not there any more"
    return (
        f'<article class="card export"><div><h4>{messages.escape(title)}</h4>'
        f'<p class="soft">{messages.escape(told)} Folder: <code>{place}</code></p>'
        f"<ul class='checks'>{checks}</ul></div>{_link(item)}</article>"
    )


def _link(item: Export) -> str:
    """The archive, served by Gradio's own file route, which asks for the login if there is one."""
    if item.zip is None:
        return '<span class="soft">The zip is not there any more.</span>'
    return (
        f'<a class="button" href="gradio_api/file={quote(str(item.zip))}" '
        f'download="{messages.escape(item.zip.name)}">Download zip '
        f"({messages.size(item.zip.stat().st_size)})</a>"
    )


def _check(check: dict[str, Any]) -> str:
    word = "Passed" if check["ok"] else "Failed"
    state = "finished" if check["ok"] else "failed"
    return (
        f'<li><span class="badge badge-{state}">{word}</span> {messages.escape(check["name"])}'
        f'<small>{messages.escape(check.get("detail", ""))}</small></li>'
    )
