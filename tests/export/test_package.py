"""A zip is whole or not there; weights are not squeezed for minutes; no path of this machine."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from core.errors import ExportError
from core.export import package
from core.export.package import folder_bytes, forget_machine, need_room, write_zip, zip_pieces


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a-model"
    (made / "sub").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"w" * 5_000_000)
    (made / "sub" / "README.md").write_text("hello " * 100)
    return made


def test_the_zip_holds_everything_under_the_folders_name(folder: Path) -> None:
    archive = folder.with_suffix(".zip")
    write_zip(folder, archive)
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        infos = {info.filename: info for info in packed.infolist()}
        assert packed.read("a-model/model.safetensors") == b"w" * 5_000_000
    assert infos.keys() == {"a-model/model.safetensors", "a-model/sub/README.md"}
    assert infos["a-model/model.safetensors"].compress_type == zipfile.ZIP_STORED
    assert infos["a-model/sub/README.md"].compress_type == zipfile.ZIP_DEFLATED


def test_a_zip_is_sent_while_it_is_made(folder: Path) -> None:
    """A model of 14 GB would have to fit into memory, or onto the disk a second time."""
    pieces = list(zip_pieces(folder))
    assert max(map(len, pieces)) < 4_300_000
    assert b"".join(pieces)[:2] == b"PK"
    assert [path.name for path in folder.parent.iterdir()] == ["a-model"]


def test_a_zip_that_fills_the_disk_leaves_nothing(folder: Path, small_disk: Path) -> None:
    """Half a zip would be sent on as the whole model."""
    place = Path(shutil.move(folder, small_disk / "a-model"))
    with pytest.raises(OSError, match="No space"):
        write_zip(place, place.with_suffix(".zip"))
    assert [path.name for path in small_disk.iterdir()] == ["a-model"]


def test_weights_beyond_4_gb_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zip needs its 64-bit form for them, and must be told so before it knows the size."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1_000_000)
    archive = folder.with_suffix(".zip")
    write_zip(folder, archive)
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None


def test_room_is_asked_for_before_writing(tmp_path: Path) -> None:
    need_room(tmp_path, 1)
    with pytest.raises(ExportError, match="needs 1000000.2 GB of disk"):
        need_room(tmp_path, 10**15)


def test_size_counts_files_in_folders(folder: Path) -> None:
    assert folder_bytes(folder) == 5_000_600


def test_notes_of_this_machine_are_taken_out_and_others_found(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(
        json.dumps({"_name_or_path": "/home/me/ws/models/x", "is_local": True, "a": 1})
    )
    (folder / "vocab.json").write_text("[1, 2]")
    forget_machine(folder, [Path("/home/me/ws")])
    assert json.loads(config.read_text()) == {"a": 1}
    (folder / "sub" / "README.md").write_text("Trained in /home/me/ws/runs.")
    with pytest.raises(ExportError, match="README.md names a folder of this machine"):
        forget_machine(folder, [Path("/home/me/ws")])
    assert package._TEXTS
