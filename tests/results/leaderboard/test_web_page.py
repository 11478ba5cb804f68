"""The leaderboard's web page: its text, and what a click and a key do in headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.records import STAGES, make_record, small_board, with_stages, write_records

from unlearnbench.results.leaderboard.build import build_leaderboard

SEEDS = 3
VOID = {"meta", "input", "br", "line", "rect", "circle", "path"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a leaderboard of two problems on which the name of one unlearner looks like markup."""
    folder = tmp_path_factory.mktemp("page")
    odd = [
        make_record(
            "<i>odd</i>",
            seed,
            metrics=(0.0, 0.6, 0.9),
            options={"text": '"><script>alert(1)</script>'},
            positions=(0.4, 0.4, 0.4),
        )
        for seed in range(SEEDS)
    ]
    judged = [
        with_stages(record, 0.2 if record.method.name == "original" else -0.1) if record.status == "done" else record
        for record in small_board("second", SEEDS)
    ]
    runs = write_records(folder / "runs", [*small_board("problem", SEEDS), *judged])
    # The label of these records cannot be a file name.
    for record in odd:
        path = folder / "runs" / "records" / "small" / "problem" / "odd" / f"seed-{record.seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record.model_dump_json())
    build_leaderboard([runs], folder / "board")
    return folder / "board" / "index.html"


# What a start tag ends of the elements whose end tags HTML does without.
ENDS = {
    **dict.fromkeys(("td", "th"), ("td", "th")),
    "tr": ("td", "th", "tr"),
    **dict.fromkeys(("dt", "dd"), ("dt", "dd")),
}


class Tags(HTMLParser):
    """Checks that tags are closed in order, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while self.open and self.open[-1] in ENDS.get(tag, ()):
            self.open.pop()
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in {"src", "data", "srcset"} or tag == "link"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name == "src"]

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1] in ENDS:
            self.open.pop()
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(page: Path) -> None:
    text = page.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.fetched == []
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<link", text)


def test_names_and_options_are_text_and_not_markup(page: Path) -> None:
    text = page.read_text()
    assert "<i>odd" not in text
    assert "&lt;i&gt;odd&lt;/i&gt;" in text
    assert text.count("<script>") == 1


def test_ids_are_unique(page: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page.read_text())
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    """Open the page in headless Chromium, whose log must stay empty."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install .[test-browser]")
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium or chromedriver is missing: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """Return the page as just opened on a wide screen."""
    resize(browser, 1280, 900)
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def resize(browser: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def find(browser: Any, selector: str) -> list[Any]:
    return [found for found in browser.find_elements("css selector", selector) if found.is_displayed()]


def methods(browser: Any) -> list[str]:
    return [button.text for button in find(browser, "button.method")]


ORDER = ["Original", "FDR", "good", "<i>odd</i>", "weak", "lossy", "absent", "broken"]


def test_one_problem_is_shown_and_another_can_be_chosen(opened: Any) -> None:
    assert [heading.text for heading in find(opened, "section.problem h2")] == ["problem: forget 1 of 10 classes"]
    assert methods(opened) == ORDER
    find(opened, "#problem-choice")[0].send_keys("2")
    assert [heading.text for heading in find(opened, "section.problem h2")] == ["second: forget 1 of 10 classes"]
    assert "odd" not in " ".join(methods(opened))


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_round(opened: Any) -> None:
    (heading,) = [found for found in find(opened, "table.board > thead button") if found.text == "FAe"]
    heading.click()
    # Equal values keep their order, and missing ones stay last.
    by_value = ["FDR", "good", "<i>odd</i>", "lossy", "weak", "Original", "absent", "broken"]
    assert methods(opened) == by_value
    heading.click()
    assert methods(opened) == ["Original", "weak", "FDR", "good", "<i>odd</i>", "lossy", "absent", "broken"]
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    find(opened, "table.board > thead button")[0].click()
    assert methods(opened) == ORDER


def test_the_filter_finds_methods_and_options(opened: Any) -> None:
    (search,) = find(opened, "input.filter")
    search.send_keys("epochs=3")
    assert methods(opened) == ["good"]
    assert find(opened, ".count")[0].text == "1 of 8 rows"
    assert len(opened.find_elements("css selector", "section:not([hidden]) g.mark.faded")) == 2 * 5
    search.send_keys(" nothing")
    assert methods(opened) == []
    assert find(opened, ".empty")[0].text == "No method fits the filter."


def test_the_pareto_set_and_the_ranked_methods_can_be_shown_alone(opened: Any) -> None:
    (ranked,), (pareto,) = find(opened, "input.only-ranked"), find(opened, "input.only-pareto")
    ranked.click()
    assert methods(opened) == ["good", "<i>odd</i>", "weak"]
    pareto.click()
    assert methods(opened) == ["good"]


def test_a_click_on_a_method_shows_its_options_seeds_and_provenance(opened: Any) -> None:
    (button,) = [found for found in find(opened, "button.method") if found.text == "good"]
    assert (button.get_attribute("aria-expanded"), find(opened, "tr.details")) == ("false", [])
    button.click()
    (details,) = find(opened, "tr.details")
    assert button.get_attribute("aria-expanded") == "true"
    seeds = ("0.00 55.00 90.00", "0.00 56.00 90.00", "0.00 55.50 90.00")
    for text in ("epochs 3", "mode a|b", "made-up 1.0", "a machine", *seeds):
        assert text in details.text.replace("\n", " ")
    links = [link.get_attribute("href").partition("/board/")[2] for link in details.find_elements("tag name", "a")]
    assert links == []
    assert "manifest small" in details.text.replace("\n", " ")
    button.click()
    assert find(opened, "tr.details") == []


def test_a_method_without_a_rank_says_why(opened: Any) -> None:
    (button,) = [found for found in find(opened, "button.method") if found.text == "broken"]
    button.click()
    (details,) = find(opened, "tr.details")
    assert "Without a rank: failed with seed 0, 1, 2: ValueError: no <b>way" in details.text


def test_the_plots_mark_references_means_and_seeds(opened: Any) -> None:
    plots = find(opened, "figure")
    assert [plot.text.split("\n")[0] for plot in plots] == ["CAne against FAe", "CAne against FPAe"]
    for plot in plots:
        marks = plot.find_elements("css selector", "g.mark")
        assert len(marks) == 6
        seeds = [mark.find_element("css selector", "path.seed").get_attribute("d") for mark in marks]
        assert [path.count("M") for path in seeds] == [SEEDS] * 6
        assert "Original" in plot.text
        assert "FDR" in plot.text
    label = (
        plots[1]
        .find_elements("css selector", "g.mark")[2]
        .find_element("tag name", "title")
        .get_attribute("textContent")
    )
    assert label == "good: FPAe 55.50 %, CAne 90.00 %"


def test_the_keyboard_opens_a_method_from_its_mark(opened: Any) -> None:
    mark = opened.find_element("css selector", "section:not([hidden]) g.mark[data-row=p1m2]")
    opened.execute_script("arguments[0].focus()", mark)
    assert "lit" in opened.find_element("id", "p1m2").get_attribute("class")
    opened.switch_to.active_element.send_keys("\n")
    assert opened.find_element("id", "p1m2-details").is_displayed()
    assert opened.switch_to.active_element.text == "good"
    opened.switch_to.active_element.send_keys(" ")
    assert not opened.find_element("id", "p1m2-details").is_displayed()


@pytest.mark.parametrize("width", [360, 600, 900])
def test_a_narrow_screen_needs_no_sideways_scrolling(opened: Any, width: int) -> None:
    resize(opened, width, 800)
    for button in find(opened, "button.method")[2:4]:
        button.click()
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    if width == 360:
        shown = [found.text for found in find(opened, "table.board > thead button")]
        assert shown == ["rank", "method", "position", "FAe", "CAne"]
        wrapper = opened.find_element("css selector", "section:not([hidden]) .scroll")
        assert opened.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", wrapper) <= 0


def test_a_map_shows_what_is_left_at_each_stage(opened: Any) -> None:
    assert find(opened, "table.heat") == []
    find(opened, "#problem-choice")[0].send_keys("2")
    (table,) = find(opened, "table.heat")
    lines = [line.text for line in table.find_elements("css selector", "tr")]
    assert lines[0] == "FPAe less FDR's probe less FDR's CKA to Original CKA to FDR"
    assert lines[1] == f"method {' '.join(STAGES * 4)}"
    judged = "0.0 {0} {1} 0.0 {0} {1} 0.50 0.50 0.50 0.50 0.50 0.50"
    assert lines[2] == f"Original {judged.format('+10.0', '+20.0')}"
    assert f"good {judged.format('-5.0', '-10.0')}" in lines
    assert not any(line.startswith(("broken", "absent")) for line in lines)
    original, good = (
        table.find_elements("css selector", "tr")[at].find_elements("css selector", "td") for at in (2, 4)
    )
    assert [cell.get_attribute("class").split() for cell in (original[2], good[2])] == [
        ["known", "h14"],
        ["damaged", "h7"],
    ]
    colours = [cell.value_of_css_property("background-color") for cell in (original[0], original[2], good[2])]
    assert len(set(colours)) == 3


def test_methods_that_ran_on_too_few_problems_have_no_profile(opened: Any) -> None:
    assert find(opened, "svg.spark") == []


def test_a_profile_is_drawn_for_each_method_with_a_score(tmp_path: Path) -> None:
    runs = write_records(tmp_path / "runs", [one for n in range(5) for one in small_board(f"problem{n}", SEEDS)])
    build_leaderboard([runs], tmp_path / "board")
    text = (tmp_path / "board" / "index.html").read_text()
    profiles = re.findall(r'aria-label="performance profile, area ([\d.]+)"><path d="([^"]+)"', text)
    # Of five methods one lost too much, one failed and one does not apply; "weak" still answers with the old classes.
    assert [area for area, _ in profiles] == ["0.70", "0.00", "0.00", "0.00", "0.00"]
    # It lies within 0.3 of FDR on all problems: from 36 of 120 units to the right end the area is full.
    assert profiles[0][1] == "M0 30H0.0V30.0H36.0V0.0H120.0V0.0H120V30z"
