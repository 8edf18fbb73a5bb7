"""Images pair by what their names say, or not at all."""

import unicodedata
from pathlib import Path

import pytest

from kpac.data.pairing import pair
from kpac.errors import UserError

NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def files(folder: str, names: list[str]) -> list[Path]:
    return sorted(Path(folder) / f"{name}.png" for name in names)


def pairs_of(names: list[str], others: list[str]) -> dict[str, str | None]:
    found = pair(files("input", names), files("target", others))
    partners = (partner and partner.stem for partner in found.partners)
    return dict(zip([path.stem for path in found.images], partners, strict=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{}_blur", "{}"),
        ("{}", "{}_gt"),
        ("{}_input", "{}_gt"),
        ("blur{}", "sharp{}"),
        ("{}B", "{}S"),
        ("img-{}.blurred", "img-{}.sharp"),
        ("IMG_20240101_{}_defocus", "IMG_20240101_{}"),
        ("scene{}_input_01", "scene{}_gt_01"),
        ("left_{}", "right_{}"),
        ("s{}_f2.8", "s{}_f22"),
        ("SceneDefocus{}", "SceneAllInFocus{}"),
        ("Größe {} unscharf", "Größe {} scharf"),
        ("模糊{}", "清晰{}"),
    ],
)
def test_names_pair_by_what_differs(one, other):
    names, others = ([text.format(number) for number in NUMBERS] for text in (one, other))
    assert pairs_of(names, others) == dict(zip(names, others, strict=True))
    assert pairs_of(others, names) == dict(zip(others, names, strict=True))


def test_names_of_words_pair_by_what_differs():
    scenes = ["oak", "Oak2", "two_oaks", "town hall", "town_blur_hall"]
    names, others = [f"{scene}_blur" for scene in scenes], [f"{scene}_sharp" for scene in scenes]
    assert pairs_of(names, others) == dict(zip(names, others, strict=True))


def test_single_pair_needs_a_common_word():
    assert pairs_of(["5_blur"], ["5_gt"]) == {"5_blur": "5_gt"}
    assert pairs_of(["5_blur"], ["4", "5", "6"]) == {"5_blur": "5"}
    for name, other in (("blur", "sharp"), ("5_blur", "6_gt"), ("0917", "0916")):
        with pytest.raises(UserError, match="do not show which images belong together"):
            pairs_of([name], [other])


def test_composed_and_decomposed_names_are_equal():
    composed, decomposed = (unicodedata.normalize(form, "Café Ångström") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert pairs_of([composed, "b"], [decomposed, "b"]) == {composed: decomposed, "b": "b"}
    assert pairs_of([f"{composed}_blur", "b_blur"], [decomposed, "b"])[f"{composed}_blur"] == decomposed


def test_neighbouring_numbers_are_not_taken_for_pairs():
    """A camera numbers a scene's two photographs one after the other; which is whose, the names do not say."""
    with pytest.raises(UserError, match=r"input \(3: IMG_10.png, IMG_12.png, IMG_14.png\) and target \(3: IMG_11.png"):
        pairs_of(["IMG_10", "IMG_12", "IMG_14"], ["IMG_11", "IMG_13", "IMG_15"])


def test_padding_is_not_guessed():
    with pytest.raises(UserError, match="do not show which images belong together"):
        pairs_of(["1_blur", "2_blur"], ["001", "002"])


def test_names_that_share_nothing_show_the_first_of_both_sides():
    with pytest.raises(UserError) as error:
        pairs_of(["a", "b", "c", "d"], ["w", "x", "y", "z"])
    assert "input (4: a.png, b.png, c.png, ...) and target (4: w.png, x.png, y.png, ...)" in str(error.value)
    assert "data.pair_by_order: true" in str(error.value)


def test_missing_partner_is_named_and_left_over_ones_are_known():
    names, others = [f"{number}_blur" for number in NUMBERS], [str(number) for number in NUMBERS]
    found = pair(files("input", names), files("target", [*others[:4], *others[5:], "12"]))
    assert [path.stem for path in found.left_over] == ["12"]
    with pytest.raises(UserError, match=r"^target: no target for input/5_blur.png \(names pair as 10_blur and 10\)$"):
        found.require_all("target", Path("target"))


def test_stray_file_does_not_hide_the_rule():
    names, others = [f"{number}_blur" for number in NUMBERS], [f"{number}_sharp" for number in NUMBERS]
    assert pairs_of(names, [*others, "contact sheet"]) == dict(zip(names, others, strict=True))


def test_equal_names_win_over_anything_else():
    assert pairs_of(["1", "1_1", "1_1_1"], ["1", "1_1", "1_1_1"]) == {"1": "1", "1_1": "1_1", "1_1_1": "1_1_1"}


def test_two_ways_to_pair_are_refused():
    with pytest.raises(UserError, match="pair in two ways"):
        pairs_of(["a_1_a_2", "a_2_a_1"], ["a_1_2", "a_2_1", "1_a_2", "2_a_1", "z"])


def test_sorted_order_is_asked_for_and_needs_equal_numbers():
    found = pair(files("input", ["a", "b"]), files("target", ["x", "y"]), by_order=True)
    assert [path.stem for path in found.partners] == ["x", "y"]
    assert found.rule == "names pair by sorted order"
    with pytest.raises(UserError, match="equal numbers of images"):
        pair(files("input", ["a", "b"]), files("target", ["x"]), by_order=True)
