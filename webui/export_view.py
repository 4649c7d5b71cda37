"""The exports of a run as HTML: what each is, what was checked, where it lies, a link to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.jobs.task import read_result
from core.workspace import RunFolder
from webui import messages

TITLES = {"adapter": "Adapter", "merged": "Merged model"}


def exports(run: RunFolder) -> str:
    """Every finished export of a run, newest first."""
    found = [(folder, read_result(folder)) for folder in sorted(run.exports.glob("[!.]*/"))]
    cards = [_card(folder, result) for folder, result in reversed(found) if result]
    if not cards:
        return messages.empty(
            "No export yet",
            "An export is loaded again and compared with the trained model before it is offered.",
        )
    return f"<h3>Exports</h3>{''.join(cards)}"


def _card(folder: Path, result: dict[str, Any]) -> str:
    title = TITLES.get(result["format"], result["format"])
    checks = "".join(_check(check) for check in result.get("checks", []))
    archive = folder / Path(result["zip"]).name
    link = (
        f'<a class="button" href="gradio_api/file={quote(str(archive))}" '
        f'download="{messages.escape(archive.name)}">Download zip '
        f"({messages.size(archive.stat().st_size)})</a>"
        if archive.is_file()
        else '<span class="soft">The zip is not there any more.</span>'
    )
    place = folder / Path(result["path"]).name
    return (
        f'<article class="card export"><div><h4>{messages.escape(title)}</h4>'
        f'<p class="soft">{messages.escape(folder.name)}, {messages.size(result["size_bytes"])}. '
        f"Folder: <code>{messages.escape(place)}</code></p><ul class='checks'>{checks}</ul></div>"
        f"{link}</article>"
    )


def _check(check: dict[str, Any]) -> str:
    word = "Passed" if check["ok"] else "Failed"
    state = "finished" if check["ok"] else "failed"
    return (
        f'<li><span class="badge badge-{state}">{word}</span> {messages.escape(check["name"])}'
        f'<small>{messages.escape(check.get("detail", ""))}</small></li>'
    )
