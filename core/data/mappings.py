"""Mappings that a person saved, so that the next file of the same kind needs no choosing.

One file each in WORKSPACE/mappings. A file that is damaged is listed with what is wrong with it
and never stands in the way of the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from core.data.forms import FORMS, fits, used_columns
from core.data.values import BOTH, joined
from core.errors import DataError, WorkspaceError
from core.language import _
from core.workspace import Workspace, checked_id, write_atomic


class SavedMapping(BaseModel):
    """A form with its mapping. `columns` are those of the rows it was made for, as far as they
    are known."""

    # A newer version may have added fields: an older one still reads the file.
    model_config = ConfigDict(extra="ignore")

    name: str = ""
    form: str
    mapping: dict[str, str]
    system_prompt: str = ""
    columns: list[str] = []


@dataclass(frozen=True)
class DamagedMapping:
    """A file among the saved mappings that cannot be used, and why."""

    name: str
    problem: str


def save_mapping(
    workspace: Workspace,
    name: str,
    form: str,
    mapping: Mapping[str, str],
    system_prompt: str = "",
    columns: Collection[str] = (),
) -> SavedMapping:
    """Saves a mapping under a name (lower-case letters, digits, hyphens); one that had the name
    is replaced. Raises DataError for a mapping that no file could be read with, and
    WorkspaceError for a name that is none."""
    path = _path(workspace, name)
    wrong = _wrong(form, mapping)
    if wrong:
        raise DataError(
            _("The mapping cannot be saved: {wrong}.", wrong=wrong),
            _("Choose its form and columns."),
        )
    sources = {field: source for field, source in mapping.items() if source}
    settings = FORMS[form].settings
    used = used_columns({field: s for field, s in sources.items() if field not in settings})
    saved = SavedMapping(
        name=name,
        form=form,
        mapping=sources,
        system_prompt=system_prompt,
        columns=sorted({*columns, *used}),
    )
    try:
        write_atomic(path, saved.model_dump_json(indent=1, exclude={"name"}) + "\n")
    except OSError as error:
        raise DataError(
            _("The mapping could not be written: {reason}.", reason=error.strerror),
            _("Look at the free space and the rights of the workspace's folder."),
        ) from error
    return saved


def load_mapping(workspace: Workspace, name: str) -> SavedMapping:
    """The mapping with this name. Raises DataError when there is none or its file is damaged."""
    path = _path(workspace, name)
    if not path.is_file():
        there = ", ".join(found.name for found in list_mappings(workspace))
        raise DataError(
            _("There is no saved mapping {name}.", name=name),
            _("There are {names}.", names=there) if there else _("None has been saved yet."),
        )
    read = _read(path)
    if isinstance(read, DamagedMapping):
        raise DataError(
            _(
                "The saved mapping {name} cannot be used: {problem}.",
                name=name,
                problem=read.problem,
            ),
            _("Delete it and save it again."),
        )
    return read


def list_mappings(workspace: Workspace) -> list[SavedMapping | DamagedMapping]:
    """Every saved mapping by name; those that cannot be read say why."""
    return [_read(path) for path in sorted(_folder(workspace).glob("[!.]*.json"))]


def delete_mapping(workspace: Workspace, name: str) -> None:
    """Removes a saved mapping, damaged or not. Raises DataError when there is none."""
    try:
        _path(workspace, name).unlink()
    except FileNotFoundError as error:
        raise DataError(
            _("There is no saved mapping {name}.", name=name), _("Look at the list.")
        ) from error


def best_mapping(workspace: Workspace, columns: Collection[str]) -> SavedMapping | None:
    """The saved mapping that was made for rows most like these, of those that fit them.

    One fits when all columns that it uses are there. Of several the one wins whose rows had the
    most columns in common with these and the fewest others; then the first by name.
    """
    here = set(columns)

    def likeness(saved: SavedMapping) -> float:
        there = set(saved.columns)
        return len(here & there) / max(len(here | there), 1)

    fitting = [
        saved
        for saved in list_mappings(workspace)
        if isinstance(saved, SavedMapping) and fits(saved.form, saved.mapping, here)
    ]
    return max(fitting, key=likeness, default=None)


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "mappings"


def _path(workspace: Workspace, name: str) -> Path:
    return _folder(workspace) / f"{checked_id(name)}.json"


def _wrong(form: str, mapping: Mapping[str, str]) -> str:
    """Why no rows can be read with a form and a mapping, or ""."""
    if form not in FORMS:
        return _("{form!r} is not a form", form=form)
    known = {*FORMS[form].fields, *FORMS[form].settings}
    unknown = [field for field in mapping if field not in known]
    if unknown:
        return _("the form {form} has no field {field}", form=form, field=unknown[0])
    for setting, allowed in FORMS[form].settings.items():
        if allowed and mapping.get(setting, "") not in ("", *allowed):
            return _("the {setting} cannot be {value!r}", setting=setting, value=mapping[setting])
    missing = [field for field in FORMS[form].required if not mapping.get(field)]
    if missing:
        fields = joined(BOTH, missing)
        return _("the form {form} needs a column for {fields}", form=form, fields=fields)
    return ""


def _read(path: Path) -> SavedMapping | DamagedMapping:
    try:
        checked_id(path.stem)
        saved = SavedMapping.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except WorkspaceError:
        return DamagedMapping(path.stem, _("its file's name is none that a mapping can have"))
    except OSError as error:
        return DamagedMapping(
            path.stem, _("its file cannot be read ({reason})", reason=error.strerror)
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return DamagedMapping(
            path.stem,
            _("{place}: {problem}", place=where or _("its file"), problem=first["msg"]),
        )
    except (ValueError, RecursionError):
        return DamagedMapping(path.stem, _("its file is not JSON"))
    wrong = _wrong(saved.form, saved.mapping)
    if wrong:
        return DamagedMapping(path.stem, wrong)
    return saved.model_copy(update={"name": path.stem})
