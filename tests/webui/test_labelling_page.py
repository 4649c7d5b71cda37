"""A classifier labels texts in a real browser; those it is unsure of are labelled by keys and
become a version of the data set that it learned from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.data.prepare import import_dataset
from core.data.registry import load_dataset_info, read_rows
from core.jobs.job import Job, write_record
from core.jobs.store import Store
from core.labelling.predictions import list_predictions, read_labels
from tests.e2e.serving import Served
from tests.training.labelled import LabelWorld, label_world, labelled_rows

pytestmark = pytest.mark.e2e
RUN = "20260101-0000-calm-otter"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    """A run that learned a little, and thirty texts without labels."""
    made = label_world(tmp_path_factory.mktemp("labelling") / "ws")
    info = made.data("rule", labelled_rows(48), labelled_rows(12, 1))
    run = made.train(RUN, info.id, **{"training.num_train_epochs": 1.0})
    store = Store.open(made.workspace)
    job = Job(
        id=RUN, kind="train", run_id=RUN, folder=f"runs/{RUN}", name="labels",
        model="tiny-bert", dataset=info.id, state="queued",
    )  # fmt: skip
    write_record(run.root, job)
    store.add(job)
    store.transition(RUN, {"queued"}, "finished")
    store.close()
    file = Path(made.workspace.uploads / "texts.jsonl")
    file.write_text("".join(f'{{"text": "{row["text"]}"}}\n' for row in labelled_rows(30, 5)))
    import_dataset(made.workspace, [file], name="unlabelled", form="text", eval_fraction=0.0)
    return made


@pytest.fixture(scope="module")
def served(world: LabelWorld) -> Iterator[Served]:
    server = Served(world.workspace.root, "--port", "7969")
    yield server
    server.end()


def test_what_it_is_unsure_of_is_labelled_and_learned(
    page: Page, served: Served, world: LabelWorld
) -> None:
    workspace = world.workspace
    page.goto(f"{served.address}/?tab=chat&run={RUN}")
    page.locator("#labelling-dataset input").click()
    page.get_by_role("option", name="unlabelled").click()
    page.locator("#labelling-start").click()
    page.locator("#labelling-way").get_by_text("Highest entropy").click()
    texts = page.locator("#labelling-texts article")
    expect(texts).to_have_count(30)
    [found] = list_predictions(workspace.run(RUN))
    first, second = (int(texts.nth(at).get_attribute("data-text") or -1) for at in (0, 1))

    texts.first.focus()
    page.keyboard.press("2")
    expect(texts.first.locator("[aria-pressed=true]")).to_contain_text(found.labels[1])
    expect(texts.nth(1)).to_be_focused()
    page.keyboard.press("3")
    expect(page.locator("#labelling-texts [aria-pressed=true]")).to_have_count(2)
    assert read_labels(found.folder) == {first: found.labels[1], second: found.labels[2]}

    before = load_dataset_info(workspace, "rule")
    page.locator("#labelling-add").click()
    expect(page.locator("#labelling-said")).to_contain_text("a new version of the data set")
    expect(page.locator("#labelling-added .notice")).to_be_visible()
    after = load_dataset_info(workspace, "rule")
    assert (after.version, after.counts.train) == (before.version + 1, before.counts.train + 2)
    last = read_rows(workspace, "rule", "train", after.counts.train - 2, 2)
    assert {row["labels"][0] for row in last} == {found.labels[1], found.labels[2]}
    assert last[0]["meta"]["labelled_after"] == RUN


def test_a_run_that_writes_has_nothing_to_label(page: Page, served: Served) -> None:
    page.goto(f"{served.address}/?tab=chat")
    expect(page.locator("#chat-send")).to_be_visible()
    expect(page.locator("#labelling")).to_be_hidden()


def test_a_file_goes_in_and_a_file_comes_out(
    page: Page, served: Served, world: LabelWorld, tmp_path: Path
) -> None:
    """What cannot be read is told beside the file, before anything is begun."""
    page.goto(f"{served.address}/?tab=chat&run={RUN}")
    drop = page.locator("#labelling-file input[type=file]")
    bad, good = tmp_path / "bad.csv", tmp_path / "reviews.csv"
    bad.write_text("stars,price\n")
    drop.set_input_files(bad)
    expect(page.locator("#labelling-wrong")).to_contain_text("no row that can be read")
    page.locator("#labelling-file").get_by_label("Clear").click()
    expect(page.locator("#labelling-wrong")).not_to_contain_text("no row that can be read")
    texts = [row["text"] for row in labelled_rows(3, 9)]
    lines = [f'{at},"{text}"\n' for at, text in enumerate([*texts, ""], 1)]
    good.write_text("number,review\n" + "".join(lines))
    drop.set_input_files(good)
    expect(page.locator("#labelling-wrong")).to_contain_text("column review")
    page.locator("#labelling-start").click()
    expect(page.locator("#labelling-links")).to_contain_text("1 row without a text")
    with page.expect_download() as begun:
        page.locator("#labelling-links").get_by_text(".csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(begun.value.path()).read_text())))
    assert [(row["text"], row["number"]) for row in rows] == list(zip(texts, "123", strict=True))
    top = rows[0]["predicted"]
    assert rows[0][f"p({top})"] == rows[0]["probability"]
