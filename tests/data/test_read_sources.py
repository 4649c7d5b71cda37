"""Folders, archives and Hub data sets become files to read, and nothing leads out of where a
person may read."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from core.data.read import archives
from core.data.read.files import read_records
from core.data.read.sources import gather, look
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace

LINE = '{"q": "a"}\n'


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder that the workspace may read; its neighbours it may not."""
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


@pytest.fixture
def limited(tmp_path: Path, inside: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", allowed=[inside])


def write(path: Path, content: str | bytes = LINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_file_stays_where_it_is(limited: Workspace, inside: Path, tmp_path: Path) -> None:
    path = write(inside / "rows.jsonl")
    found = gather(limited, [path, str(path)], tmp_path / "scratch")
    assert [(one.path, one.name, one.origin) for one in found] == [(path, "rows.jsonl", {})] * 2
    assert not (tmp_path / "scratch").exists()


def test_a_folder_is_walked_in_order_and_what_is_left_out_is_told(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    for name in ("b.csv", "a/2.jsonl", "a/1.jsonl", "a/deep/x.json", "z.jsonl.gz"):
        write(inside / "set" / name)
    for name in ("README.md", "a/picture.png", ".git/config.json", "a/.hidden.jsonl", "x.odt"):
        write(inside / "set" / name)
    zipped(inside / "set" / "m.zip", {"in/1.jsonl": LINE})
    skipped: list[str] = []
    found = gather(limited, [inside / "set"], tmp_path / "scratch", skipped=skipped)
    assert [one.name for one in found] == [
        "set/a/1.jsonl",
        "set/a/2.jsonl",
        "set/a/deep/x.json",
        "set/b.csv",
        "set/m.zip/in/1.jsonl",
        "set/z.jsonl.gz",
    ]
    assert found[0].origin == {"folder": "set"} and found[4].origin == {"archive": "set/m.zip"}
    assert sorted(skipped) == [
        "README.md: a document among files of rows",
        "a/.hidden.jsonl: hidden",
        "a/picture.png: its ending is not known",
        "x.odt: an OpenDocument text; save it as DOCX",
    ]


def test_a_folder_of_documents_is_all_documents(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    write(inside / "books/one.txt", "one")
    write(inside / "books/two.md", "two")
    found = gather(limited, [inside / "books"], tmp_path)
    assert [one.name for one in found] == ["books/one.txt", "books/two.md"]


def test_a_folder_without_rows_says_what_is_known(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    write(inside / "set/picture.png")
    with pytest.raises(DataError, match="holds no file") as caught:
        gather(limited, [inside / "set"], tmp_path)
    assert "Parquet" in caught.value.hint


@pytest.mark.parametrize("link", ["file", "folder", "nowhere"])
def test_a_link_out_of_a_folder_is_refused(
    limited: Workspace, inside: Path, tmp_path: Path, link: str
) -> None:
    """A shared folder must not be a way to read what its owner did not share."""
    write(inside / "set/good.jsonl")
    target = write(tmp_path / "secret/rows.jsonl")
    targets = {"file": target, "folder": target.parent, "nowhere": tmp_path / "none"}
    (inside / "set" / "link.jsonl").symlink_to(targets[link])
    with pytest.raises(WorkspaceError, match=r"link\.jsonl in set is a link"):
        gather(limited, [inside / "set"], tmp_path / "scratch")
    with pytest.raises(WorkspaceError, match=r"link\.jsonl in set is a link"):
        look(None, inside / "set", tmp_path / "scratch", 1000)


def test_a_link_that_stays_inside_is_followed_once(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    path = write(inside / "set/good.jsonl")
    (inside / "set/again.jsonl").symlink_to(path)
    (inside / "set/round").symlink_to(inside / "set")
    skipped: list[str] = []
    found = gather(limited, [inside / "set"], tmp_path, skipped=skipped)
    assert [one.path for one in found] == [path, path]
    assert skipped == ["round: a link to a folder"]


def test_what_is_outside_or_missing_is_refused(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    outside = write(tmp_path / "rows.jsonl")
    (inside / "link.jsonl").symlink_to(outside)
    for path in (outside, inside / "link.jsonl", inside / ".." / "rows.jsonl"):
        with pytest.raises(WorkspaceError, match="outside"):
            gather(limited, [path], tmp_path / "scratch")
    with pytest.raises(WorkspaceError, match="does not exist"):
        gather(limited, [inside / "none.jsonl"], tmp_path / "scratch")


def test_an_archive_is_unpacked_with_its_names(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {
        "b/rows.jsonl": LINE,
        "a/rows.jsonl": LINE * 2,
        "__MACOSX/._rows.jsonl": b"",
        "notes.docs": "x",
    }
    path = zipped(inside / "set.zip", files)
    told: list[tuple[float, str]] = []
    skipped: list[str] = []
    found = gather(
        limited, [path], tmp_path, lambda done, text: told.append((done, text)), skipped=skipped
    )
    assert [one.name for one in found] == ["set.zip/a/rows.jsonl", "set.zip/b/rows.jsonl"]
    assert [len(list(read_records(one.path))) for one in found] == [2, 1]
    assert all(one.path.is_relative_to(tmp_path) for one in found)
    assert told[-1] == (1.0, "Unpacking set.zip")
    assert len(skipped) == 2


@pytest.mark.parametrize(
    "name", ["../rows.jsonl", "a/../../rows.jsonl", "/etc/rows.jsonl", "C:\\rows.jsonl"]
)
def test_a_path_out_of_an_archive_is_refused(
    limited: Workspace, inside: Path, tmp_path: Path, name: str
) -> None:
    path = zipped(inside / "set.zip", {"good.jsonl": LINE, name: LINE})
    with pytest.raises(DataError, match="leads out of it"):
        gather(limited, [path], tmp_path / "scratch")
    assert not list(tmp_path.rglob("rows.jsonl"))


def test_a_link_in_an_archive_is_refused(limited: Workspace, inside: Path, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("rows.jsonl")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(inside / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="holds a link: rows.jsonl"):
        gather(limited, [inside / "set.zip"], tmp_path / "scratch")


def test_an_archive_in_an_archive_is_refused(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    path = zipped(inside / "set.zip", {"rows.jsonl": LINE, "more.zip": b"PK"})
    with pytest.raises(DataError, match=r"another archive: more\.zip"):
        gather(limited, [path], tmp_path / "scratch")


def test_a_bomb_is_refused_with_the_limit(limited: Workspace, inside: Path, tmp_path: Path) -> None:
    """100 MB of zeros in 100 kB: not one byte of it may reach the disk."""
    path = zipped(inside / "bomb.zip", {"rows.jsonl": bytes(100_000_000)})
    with pytest.raises(DataError, match="zip bomb") as caught:
        gather(limited, [path], tmp_path / "scratch")
    assert "200 to 1" in caught.value.hint and "10,000 files" in caught.value.hint
    assert not (tmp_path / "scratch").exists()
    office = inside / "bomb.xlsx"
    path.rename(office)
    with pytest.raises(DataError, match="zip bomb"):
        list(read_records(office))


def test_an_archive_that_says_less_than_it_holds_writes_no_more(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    """A bomb may lie about its size."""
    path = zipped(inside / "set.zip", {"rows.jsonl": bytes(100_000_000)})
    data = bytearray(path.read_bytes())
    size = struct.pack("<I", 100_000_000)
    while size in data:
        place = data.index(size)
        data[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be unpacked"):
        gather(limited, [path], tmp_path / "scratch")
    written = [file.stat().st_size for file in (tmp_path / "scratch").rglob("*.jsonl")]
    assert sum(written) <= 1000


def test_too_many_files_are_refused(
    limited: Workspace, inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    path = zipped(inside / "set.zip", {f"{n}.jsonl": LINE for n in range(4)})
    with pytest.raises(DataError, match="holds 4 files"):
        gather(limited, [path], tmp_path / "scratch")


def test_a_locked_or_broken_archive_says_so(
    limited: Workspace, inside: Path, tmp_path: Path
) -> None:
    path = zipped(inside / "set.zip", {"rows.jsonl": LINE})
    locked = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + place] |= 1
    with pytest.raises(DataError, match="password"):
        gather(limited, [write(inside / "locked.zip", bytes(locked))], tmp_path / "scratch")
    torn = write(inside / "torn.zip", path.read_bytes()[:40])
    with pytest.raises(DataError, match="not a zip archive that can be read"):
        gather(limited, [torn], tmp_path / "scratch")
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"rows.jsonl") + 12] ^= 0xFF
    with pytest.raises(DataError, match="cannot be unpacked"):
        gather(limited, [write(inside / "damaged.zip", bytes(damaged))], tmp_path / "scratch")


def test_a_look_unpacks_no_more_than_it_needs(inside: Path, tmp_path: Path) -> None:
    """The page shows the beginning of an archive of gigabytes at once."""
    files: dict[str, str | bytes] = {f"{n}.jsonl": os.urandom(5000).hex() for n in range(5)}
    found = look(None, zipped(inside / "set.zip", files), tmp_path, 25_000)
    assert [one.name for one in found.files] == ["set.zip/0.jsonl", "set.zip/1.jsonl"]
    assert not found.whole and found.container == "zip"
    found = look(None, inside / "set.zip", tmp_path, 50_000)
    assert found.whole and len(found.files) == 5


def test_names_that_meet_stay_apart(limited: Workspace, inside: Path, tmp_path: Path) -> None:
    """An archive may hold the same name twice: both are read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("rows.jsonl", LINE)
        archive.writestr("rows.jsonl", LINE * 2)
    path = write(inside / "set.zip", buffer.getvalue())
    found = gather(limited, [path], tmp_path / "scratch")
    assert sorted(len(list(read_records(one.path))) for one in found) == [1, 2]
