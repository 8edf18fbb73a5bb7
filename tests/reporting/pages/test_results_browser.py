"""The results page in a browser: what one presses, drags and sorts does what it says, with the right pixels."""

import io
import shlex
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from kpac.cli import make_parser
from kpac.images import read_pixels
from kpac.reporting.sheets import parse_box
from tests.reporting.pages.conftest import HOSTILE, QUOTED, SCENES, SIZE

pytestmark = pytest.mark.browser
LAYERS = ["input", "half", "most", "target"]


def arrays(made, name):
    """The images of a scene in the order of the page."""
    folders = {"input": made / "set" / "input", "target": made / "set" / "target", "half": made / "half"}
    return [read_pixels(folders.get(layer, made / layer) / f"{name}.png") for layer in LAYERS]


def open_scene(page, view, name):
    """Opens a scene by its name, once all its images are there."""
    page.goto(f"{(view / 'index.html').as_uri()}")
    page.wait_for_function("document.body?.dataset.ready")
    page.get_by_role("link", name=name, exact=True).last.click()
    page.wait_for_function("document.body?.dataset.ready > 0")
    page.keyboard.press("a")
    settle(page)


def settle(page):
    """Waits until the viewer stands still."""
    page.wait_for_function("!kpac.view.viewer.osd.isAnimating?.() ?? true")
    page.wait_for_timeout(400)


def seen(page):
    """What the viewer shows of a scene at 1:1, less two pixels at its borders, H x W x 3."""
    page.wait_for_timeout(250)
    shot = np.asarray(Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB"))
    x, y = page.evaluate(
        "(() => { const p = kpac.view.viewer.item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0)); "
        "return [p.x, p.y]; })()"
    )
    left, top = round(x), round(y)
    return shot[top + 2 : top + SIZE[0] - 2, left + 2 : left + SIZE[1] - 2]


def download(page, selector):
    with page.expect_download() as event:
        page.click(selector)
    return event.value


def test_pages_open_from_disk_without_a_complaint(page, view):
    for name in SCENES:
        open_scene(page, view, name)
        assert page.text_content("#name") == name
    assert page.problems == []


def test_names_are_text(page, view):
    open_scene(page, view, HOSTILE)
    assert page.title() == HOSTILE
    assert page.locator("img[onerror]").count() == 0
    page.goto((view / "index.html").as_uri())
    page.wait_for_function("document.body?.dataset.ready")
    assert "owned" not in page.title()
    assert page.locator("img[onerror]").count() == 0
    assert page.get_by_role("link", name=HOSTILE).count()


def test_keys_flick_between_the_exact_images_in_place(page, view, made):
    open_scene(page, view, "plain")
    before = page.evaluate("kpac.view.viewer.osd.viewport.getBounds().toString()")
    for key, image in enumerate(arrays(made, "plain"), 1):
        page.keyboard.press(str(key))
        assert page.locator("#layers [aria-pressed=true]").inner_text().startswith(f"{key} {LAYERS[key - 1]}")
        np.testing.assert_array_equal(seen(page), image[2:-2, 2:-2])
    assert page.evaluate("kpac.view.viewer.osd.viewport.getBounds().toString()") == before


def test_zoom_stays_when_one_flicks(page, view):
    open_scene(page, view, "plain")
    box = page.locator("#viewer").bounding_box()
    page.mouse.move(box["x"] + 500, box["y"] + 200)
    start = page.evaluate("kpac.view.viewer.osd.viewport.getZoom()")
    page.mouse.wheel(0, -400)
    settle(page)
    zoomed = page.evaluate("kpac.view.viewer.osd.viewport.getZoom()")
    assert zoomed > 1.1 * start
    page.keyboard.press("4")
    settle(page)
    assert page.evaluate("kpac.view.viewer.osd.viewport.getZoom()") == zoomed
    bounds = page.evaluate("[...kpac.view.viewer.layers.values()].map((item) => item.getBounds().toString())")
    assert len(bounds) == 4
    assert len(set(bounds)) == 1


def test_columns_sort_both_ways(page, view):
    page.goto((view / "index.html").as_uri())
    page.wait_for_function("document.body?.dataset.ready")
    for place, title in ((1, "PSNR [dB]"), (3, "gain [dB]")):
        headings = page.locator("#scene-table thead tr").last.locator("th")
        column = [text.split(" ▾")[0] for text in headings.all_inner_texts()].index(title)
        for mark, sign in (("descending", -1), ("ascending", 1)):
            page.locator("#scene-table thead tr").last.locator("th").nth(column).get_by_role("button").click()
            assert page.locator(f"#scene-table th[aria-sort={mark}]").count() == 1
            cells = page.locator(f"#scene-table tbody tr > :nth-child({column + 1})").all_inner_texts()
            values = [float(text) for text in cells]
            assert values == sorted(values, key=lambda value: sign * value)
            assert len(values) == 3
        assert place
    page.fill("#filter-name", "日本")
    assert page.locator("#scene-table tbody tr").count() == 1
    assert page.text_content("#count") == "1 of 3 scenes"


@pytest.mark.parametrize("name", SCENES)
def test_a_drawn_box_gives_its_pixels_and_its_figure(page, view, made, name):
    open_scene(page, view, name)
    box = page.locator("#viewer").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.press("b")
    page.mouse.move(x - 20.3, y - 10.2)
    page.mouse.down()
    page.mouse.move(x + 14.6, y + 9.1, steps=3)
    page.mouse.up()
    page.wait_for_function("document.body.dataset.strip")
    top, left, height, width = (int(page.input_value(f"#box-{side}")) for side in ("top", "left", "height", "width"))
    assert abs(left - (SIZE[1] / 2 - 20.3)) <= 1.5
    assert abs(top - (SIZE[0] / 2 - 10.2)) <= 1.5
    assert abs(width - 35) <= 2
    assert abs(height - 19.5) <= 2

    strip = np.asarray(Image.open(download(page, "#save-strip").path()).convert("RGB"))
    crops = [image[top : top + height, left : left + width] for image in arrays(made, name)]
    np.testing.assert_array_equal(strip, np.concatenate(crops, axis=1))

    words = shlex.split(page.input_value("#command"))
    asked = make_parser().parse_args(words[1:])
    assert words[:3] == ["kpac", "figure", "comparison"]
    assert asked.scene == [name]
    assert asked.box == [parse_box(f"{top},{left},{height},{width}")]


def test_a_typed_box_is_magnified_without_smoothing(page, view, made):
    open_scene(page, view, "plain")
    for side, value in (("top", 80), ("left", 4), ("height", 30), ("width", 6)):
        page.fill(f"#box-{side}", str(value))
    page.keyboard.press("Enter")
    page.wait_for_function("document.body.dataset.strip")
    assert page.input_value("#box-height") == "10"  # the image ends there
    page.select_option("#magnify", "4")
    page.wait_for_function("document.getElementById('strip').height === 40")
    page.wait_for_timeout(200)
    strip = np.asarray(Image.open(download(page, "#save-strip").path()).convert("RGB"))
    crops = np.concatenate([image[80:90, 4:10] for image in arrays(made, "plain")], axis=1)
    np.testing.assert_array_equal(strip, crops.repeat(4, axis=0).repeat(4, axis=1))


def test_the_pixel_under_the_pointer_is_told(page, view, made):
    open_scene(page, view, "plain")
    box = page.locator("#viewer").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 7.5, box["y"] + box["height"] / 2 - 12.5)
    place = [int(word.strip(":,")) for word in page.text_content("#pixel-place").split() if word.strip(":,").isdigit()]
    row, column = place[:2]
    assert abs(row - (SIZE[0] / 2 - 12.5)) <= 1
    assert abs(column - (SIZE[1] / 2 + 7.5)) <= 1
    told = page.locator("#pixel tbody tr").all_inner_texts()
    expected = [
        [layer, *map(str, image[row, column])] for layer, image in zip(LAYERS, arrays(made, "plain"), strict=True)
    ]
    assert [line.split() for line in told] == expected


def test_the_slider_shows_one_image_left_and_another_right(page, view, made):
    open_scene(page, view, "plain")
    page.check("#split")
    page.select_option("#split-left", "target")
    page.select_option("#split-right", "input")
    blurred, *_, target = (image[2:-2, 2:-2] for image in arrays(made, "plain"))
    shot, middle = seen(page), SIZE[1] // 2 - 2
    np.testing.assert_array_equal(shot[:, : middle - 8], target[:, : middle - 8])
    np.testing.assert_array_equal(shot[:, middle + 8 :], blurred[:, middle + 8 :])
    page.locator("#split-at").focus()
    page.keyboard.press("End")
    np.testing.assert_array_equal(seen(page), target)


def test_the_error_map_is_bright_where_the_error_is(page, view, made):
    open_scene(page, view, "plain")
    page.keyboard.press("1")
    page.keyboard.press("e")
    page.wait_for_function("document.body.dataset.overlay === 'error 0'")
    blurred, *_, target = arrays(made, "plain")
    error = np.abs(blurred.astype(int) - target).mean(axis=2)[2:-2, 2:-2]
    assert np.corrcoef(seen(page).astype(int).sum(axis=2).ravel(), error.ravel())[0, 1] > 0.95
    page.keyboard.press("e")
    assert page.input_value("#overlay") == ""


def test_an_image_is_saved_without_loss(page, view, made):
    open_scene(page, view, QUOTED)
    page.keyboard.press("3")
    saved = download(page, "#save")
    np.testing.assert_array_equal(np.asarray(Image.open(saved.path()).convert("RGB")), arrays(made, QUOTED)[2])
    assert urllib.parse.unquote(saved.suggested_filename).endswith("most.webp")


def test_the_keyboard_alone_is_enough(page, view):
    page.goto((view / "index.html").as_uri())
    page.wait_for_function("document.body?.dataset.ready")
    focus(page, "thead button >> nth=1")
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=descending]").count() == 1
    focus(page, "#scene-table tbody a >> nth=0")
    page.keyboard.press("Enter")
    page.wait_for_function("document.body?.dataset.ready > 0")
    first = page.text_content("#place")
    page.keyboard.press("n" if first.startswith("1 ") else "p")
    page.wait_for_function(f"document.getElementById('place').textContent !== {first!r}")
    page.wait_for_function("document.body?.dataset.ready > 0")
    focus(page, ".openseadragon-canvas")
    before = page.evaluate("kpac.view.viewer.osd.viewport.getCenter().x")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.evaluate("kpac.view.viewer.osd.viewport.getCenter().x") != before


def focus(page, selector):
    """Goes to an element by the Tab key."""
    wanted = page.locator(selector)
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"the Tab key does not reach {selector}")
