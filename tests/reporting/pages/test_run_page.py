"""The page of a training run: its curves and images, read again while it goes on."""

import pytest

from kpac.cli import main
from kpac.reporting.pages.run_log import read_run, validation_images
from tests.reporting.pages.conftest import line
from tests.reporting.pages.test_pages import data_of, fails


def test_a_run_is_read_up_to_the_line_that_is_being_written(run):
    log = read_run(run)
    assert log.columns["train"] == [5, 10, 15, 20]
    assert log.columns["val/psnr"] == [20.0, None]
    assert (log.done, log.planned, log.is_finished) == (20, 40, False)


def test_images_of_the_validations_are_those_of_the_events(run):
    found = list(validation_images(run))
    assert [(tag, step) for tag, step, _ in found] == [("val/<i>scene</i>", 10), ("val/<i>scene</i>", 20)]
    assert all(content.startswith(b"\x89PNG") for *_, content in found)
    assert main(["view", str(run), "--output", str(run / "view")]) == 0
    ((step, file), _) = data_of(run / "view" / "data" / "runs.js")["runs"][0]["pictures"][0]["steps"]
    assert step == 10
    assert (run / "view" / file).read_bytes() == found[0][2]


def test_a_run_without_results_that_can_be_shown_has_its_curves(run, capsys):
    assert main(["view", str(run.parent)]) == 0
    assert (run.parent / "view" / "index.html").is_file()
    assert "neither" in fails(capsys, "view", run / "tensorboard")


def test_refresh_ends_with_the_run(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n" + line("train", 40, loss=0.02))
    assert main(["view", str(run), "--output", str(run / "view"), "--refresh", "60"]) == 0


@pytest.mark.browser
def test_curves_and_images_are_shown_and_follow_the_run(run, page):
    from kpac.reporting.pages.view import Pages

    view = Pages([run])
    view.write(run / "view", refresh=1)
    page.goto((run / "view" / "index.html").as_uri())
    page.wait_for_function("document.body?.dataset.ready === '20'")
    assert "iteration 20 of 40" in page.text_content("#state")
    assert page.locator(".chart canvas").count() == 3
    names = [chart.get_attribute("aria-label") for chart in page.locator(".chart [role=img]").all()]
    assert names[0] == "loss; a & <b>b: from 0.2 to 0.05"
    assert page.text_content("#step-text") == "iteration 20"
    page.locator("#step").focus()
    page.keyboard.press("Home")
    assert page.text_content("#step-text") == "iteration 10"
    assert "iteration 10" in page.locator("#pictures img").get_attribute("alt")
    page.wait_for_function("document.querySelector('#pictures img').naturalWidth === 60")
    assert page.locator("#pictures i, h1 b").count() == 0

    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n" + line("train", 40, loss=0.02))
    view.runs.write_data(run / "view", refresh=1)
    page.wait_for_function("document.body.dataset.ready === '40'")
    assert page.problems == []
