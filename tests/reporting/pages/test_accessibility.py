"""Whoever sees little, or nothing, can use the pages: contrast holds, and controls have names."""

import re
from pathlib import Path

import pytest

import kpac.reporting.pages
from kpac.cli import main
from tests.reporting.pages.conftest import QUOTED

CONTRAST = 4.5  # of normal text, WCAG 2.2 criterion 1.4.3, level AA
CONTROLS = {
    *("button", "checkbox", "combobox", "link", "listbox", "radio", "searchbox", "slider", "spinbutton", "textbox"),
    *("application", "image"),
}

# Every element that shows text, with the colours of the text and of what lies behind, 0 to 255.
SEEN_TEXT = """() => {
  const parse = (color) => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, at) => a * value + (1 - a) * below[at]);
  const found = [];
  for (const element of document.querySelectorAll("body, body *")) {
    const control = element.matches("input:not([type=checkbox], [type=range]), select, textarea");
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!(control || own) || element.matches("script, noscript, option") || !element.checkVisibility()) continue;
    const ancestors = [];
    for (let one = element; one; one = one.parentElement) ancestors.unshift(getComputedStyle(one));
    let back = [255, 255, 255];
    let opacity = 1;
    for (const style of ancestors) {
      back = over(parse(style.backgroundColor), back);
      opacity *= style.opacity;
    }
    const [r, g, b, a] = parse(getComputedStyle(element).color);
    const text = (control ? element.value : element.textContent).trim().slice(0, 40);
    found.push({ text, color: over([r, g, b, a * opacity], back), back });
  }
  return found;
}"""


def contrast(first, second) -> float:
    """The contrast of two sRGB colours as WCAG defines it, 1 to 21."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color) -> float:
    red, green, blue = ((v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4) for v in (c / 255 for c in color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # a well-known grey that fails


def test_colours_of_text_stand_out_from_those_of_backgrounds():
    """Those of a loss and of a notice, too, which few pages show."""
    css = (Path(kpac.reporting.pages.__file__).parent / "static" / "page.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) == 2  # light and dark
    for colors in schemes:
        pairs = [(text, back) for text in ("text", "soft", "accent", "good", "bad") for back in ("back", "raised")]
        for text, back in [*pairs, ("on-accent", "accent")]:
            first, second = (tuple(bytes.fromhex(colors[name][1:])) for name in (text, back))
            assert contrast(first, second) >= CONTRAST, (text, back)


@pytest.fixture(params=["index", "scene", "run"])
def shown(request, page, view, run):
    """A page with all of its parts in view."""
    if request.param == "run":
        assert main(["view", str(run), "--output", str(run / "view")]) == 0
        page.goto((run / "view" / "index.html").as_uri())
        page.wait_for_function("document.body?.dataset.ready")
        return page
    page.goto((view / "index.html").as_uri())
    page.wait_for_function("document.body?.dataset.ready")
    if request.param == "index":
        page.fill("#filter-name", "nothing is called so")
        page.fill("#filter-name", "")
        return page
    page.get_by_role("link", name=QUOTED, exact=True).last.click()
    page.wait_for_function("document.body?.dataset.ready > 0")
    page.keyboard.press("e")
    page.wait_for_function("document.body.dataset.overlay")
    for side in ("top", "left", "height", "width"):
        page.fill(f"#box-{side}", "20")
    page.keyboard.press("Enter")
    page.wait_for_function("document.body.dataset.strip")
    page.evaluate("kpac.problem(new Error('something went wrong'))")
    return page


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(shown, scheme):
    shown.emulate_media(color_scheme=scheme)
    texts = shown.evaluate(SEEN_TEXT)
    assert len(texts) > 5
    assert [item for item in texts if contrast(item["color"], item["back"]) < CONTRAST] == []


@pytest.mark.browser
def test_controls_and_images_have_names(shown):
    tree = shown.context.new_cdp_session(shown).send("Accessibility.getFullAXTree")
    there = [node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert there
    assert [node for node in there if not node.get("name", {}).get("value", "").strip()] == []
