"""The page in a browser, opened from the disk."""

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from ggufbench.report.content import Content
from ggufbench.report.page import write_report

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>"
ROWS = "#cases-table tbody tr"


def test_page_opens_without_errors_and_requests(reader, page):
    for theme in ("light", "dark"):
        reader.open(page, theme=theme)
        assert reader.find("h1").is_displayed()
        assert reader.complaints() == []
        assert reader.requests() == [page.resolve().as_uri()]


def test_first_screen_shows_results_and_picture(reader, page):
    """At 1280 x 800, the table with six rows or more and the picture are in the first screen."""
    reader.open(page, width=1280, height=800)
    places = reader.run(
        "const place = (element) => element.getBoundingClientRect();"
        "return {table: place(document.querySelector('table.results')).top,"
        " head: place(document.querySelector('table.results thead')).bottom,"
        " picture: place(document.querySelector('#figure-versus')).top,"
        " rows: [...document.querySelectorAll('table.results tbody tr')].map(row => place(row).bottom)}"
    )
    assert 0 < places["table"] < places["head"] < 800
    assert 0 < places["picture"] < 400, "the picture is next to the table"
    assert len([bottom for bottom in places["rows"] if bottom <= 800]) >= 6


def test_browser_applies_the_policy(reader, page):
    """A script or picture that reaches the page is blocked."""
    reader.open(page)
    reader.run(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true';"
        "document.body.append(s);"
        "const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
    )
    assert reader.run("return window.ran === undefined")
    complaints = " ".join(reader.complaints())
    assert complaints.count("Content Security Policy") == 2, complaints
    assert "script-src" in complaints and "img-src" in complaints


def test_hostile_name_is_shown_as_text(reader, page):
    reader.open(page)
    assert reader.run("return document.images.length") == 0
    assert any(HOSTILE in name for name in reader.visible(f"{ROWS} th"))
    # An alert would have to be closed before anything else can be asked.
    assert reader.run("return document.title")


def test_click_sorts_and_second_click_reverses(reader, page):
    reader.open(page)
    button = button_of(reader, "Decode")
    button.click()
    rising = numbers(reader, "Decode")
    assert rising == sorted(rising) and len(rising) > 3
    assert head_of(reader, "Decode").get_attribute("aria-sort") == "ascending"
    button.click()
    assert numbers(reader, "Decode") == rising[::-1]
    assert head_of(reader, "Decode").get_attribute("aria-sort") == "descending"
    last = reader.all(ROWS)[-1].text
    assert "measured" not in last, "cases without a value are last in both orders"
    button_of(reader, "Case").click()
    names = reader.visible(f"{ROWS} th")
    assert names[0].startswith("<img") and head_of(reader, "Decode").get_attribute("aria-sort") == "none"


def test_keyboard_sorts_filters_and_opens(reader, page):
    reader.open(page)
    button = button_of(reader, "Peak memory")
    reader.run("arguments[0].focus()", button)
    press(reader, Keys.ENTER)
    assert head_of(reader, "Peak memory").get_attribute("aria-sort") == "ascending"
    press(reader, Keys.SPACE)
    assert head_of(reader, "Peak memory").get_attribute("aria-sort") == "descending"
    reader.run("arguments[0].focus()", reader.find("#filter-text"))
    press(reader, "hangs")
    reader.wait(lambda: len(shown(reader)) == 1, "one case")
    summary = reader.find("details.record summary")
    reader.run("arguments[0].focus()", summary)
    press(reader, Keys.ENTER)
    assert reader.find("details.record").get_attribute("open")


def test_search_and_filters_show_the_number_of_cases(reader, page, kinds_of_records):
    total = len(kinds_of_records)
    reader.open(page)
    status = reader.find("#shown")
    assert status.get_attribute("role") == "status" and status.text == f"{total} of {total} cases shown"
    choose(reader, "outcome", "crashed")
    crashed = [record for record in kinds_of_records if record.outcome == "crashed"]
    assert len(shown(reader)) == len(crashed) > 0
    assert status.text == f"{len(crashed)} of {total} cases shown"
    reader.find("#clear").click()
    choose(reader, "quantization", "Q4_K_M")
    reader.find("#filter-text").send_keys("CPU llama")
    ids = [r.case_id for r in kinds_of_records if r.model.quantization == "Q4_K_M"]
    wanted = [name for name in ids if "llama" in name and "cpu" in name]
    reader.wait(lambda: shown(reader) == wanted, "the search to be applied")
    reader.find("#clear").click()
    assert len(shown(reader)) == total


def test_link_of_a_row_opens_its_record(reader, page):
    reader.open(page)
    link = reader.find(f"{ROWS} th a")
    name, target = link.text, link.get_attribute("href").split("#")[1]
    assert not reader.find(f"#{target}").get_attribute("open")
    link.click()
    record = reader.wait(lambda: opened(reader, target), "the record to open")
    assert name in record.text and "Repeat the measurement" in record.text
    # Folded again, the same link opens it again.
    reader.find(f"#{target} summary").click()
    reader.run("arguments[0].click()", link)
    assert reader.wait(lambda: opened(reader, target), "the record to open again")


def test_address_with_a_record_opens_it(reader, page):
    reader.open(page, "#c2")
    record = reader.wait(lambda: opened(reader, "c2"), "the record to open")
    assert 0 <= reader.run("return arguments[0].getBoundingClientRect().top", record) < 300


def test_all_records_open_and_close(reader, page):
    reader.open(page)
    reader.find("#unfold").click()
    assert reader.run("return document.querySelectorAll('details.record:not([open])').length") == 0
    reader.find("#fold").click()
    assert reader.run("return document.querySelectorAll('details.record[open]').length") == 0


def test_the_command_is_copied_from_a_page_on_disk(reader, page):
    reader.open(page, "#c1")
    reader.wait(lambda: opened(reader, "c1"), "the record to open")
    command = reader.find("#c1 .command code").get_attribute("textContent")
    reader.find("#c1 .command button").click()
    reader.wait(lambda: "copied" in reader.find("#copied").get_attribute("textContent"), "to be copied")
    reader.run("arguments[0].value = ''; arguments[0].focus()", reader.find("#filter-text"))
    ActionChains(reader.driver).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
    assert reader.run("return arguments[0].value", reader.find("#filter-text")) == command


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_page_is_never_wider_than_the_window(reader, page, width):
    reader.open(page, width=width)
    assert reader.run("return document.documentElement.scrollWidth") <= width
    reader.find("#unfold").click()
    assert reader.run("return document.documentElement.scrollWidth") <= width


def test_figures_use_the_colours_of_the_theme(reader, page):
    def colours() -> tuple[str, str]:
        return reader.run(
            "const text = document.querySelector('figure svg text');"
            "return [getComputedStyle(text).fill, getComputedStyle(document.body).backgroundColor]"
        )

    light, dark = (colours() for theme in ("light", "dark") if reader.open(page, theme=theme))
    assert light[0] != dark[0] and light[1] != dark[1]


def test_page_prints(reader, page):
    reader.open(page)
    paper = reader.pdf()
    assert paper.startswith(b"%PDF-") and len(paper) > 20_000
    reader.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not reader.find("nav.page").is_displayed() and not reader.find("#filter-text").is_displayed()
    assert reader.find(".said").is_displayed() and reader.find("figure svg").is_displayed()
    reader.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_page_is_complete_without_scripts(reader, page):
    reader.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        reader.open(page)
        assert len(reader.all(f"{ROWS}")) == len(shown(reader)) > 5
        assert not reader.find("#filter-text").is_displayed(), "controls that need a script are hidden"
    finally:
        reader.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_thousands_of_cases_stay_usable(reader, kinds_of_records, tmp_path, count):
    """Rows are shown in batches; search and sorting cover all of them."""
    base = kinds_of_records[0].model_copy(update={"launches": []})
    many = [base.model_copy(update={"case_id": f"case-{number:05d}"}) for number in range(count)]
    page = write_report(Content(records=many), tmp_path)[0]
    assert page.stat().st_size < 10_000_000
    reader.open(page)
    assert len(shown(reader)) == 200
    assert reader.find("#shown").text == f"200 of {count} matching cases shown, {count} in all"
    reader.find("#more").click()
    assert len(shown(reader)) == 1200
    button_of(reader, "Case").click()
    button_of(reader, "Case").click()
    assert reader.find(f"{ROWS} th").text == f"case-{count - 1:05d}"
    reader.find("#filter-text").send_keys("case-01432")
    reader.wait(lambda: shown(reader) == ["case-01432"], "the search to be applied")


def shown(reader) -> list[str]:
    """Names of the visible cases."""
    return reader.run(
        f"return [...document.querySelectorAll('{ROWS}')].filter(row => row.getClientRects().length)"
        ".map(r => r.cells[0].textContent)"
    )


def head_of(reader, heading: str):
    return next(head for head in reader.all("#cases-table thead th") if head.text.startswith(heading))


def button_of(reader, heading: str):
    button = head_of(reader, heading).find_element("css selector", "button")
    reader.run("arguments[0].scrollIntoView({block: 'center'})", button)  # not below the navigation
    return button


def numbers(reader, heading: str) -> list[float]:
    """Values of a column, in the order of the rows."""
    return reader.run(
        "const column = [...document.querySelectorAll('#cases-table thead th')]"
        ".findIndex(head => head.textContent.startsWith(arguments[0]));"
        f"return [...document.querySelectorAll('{ROWS}')].map(row => row.cells[column].dataset.v)"
        ".filter(value => value !== undefined).map(Number)",
        heading,
    )


def choose(reader, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(reader.find(f"#filter-{name}")).select_by_visible_text(value)


def press(reader, keys: str) -> None:
    ActionChains(reader.driver).send_keys(keys).perform()


def opened(reader, target: str):
    record = reader.find(f"#{target}")
    return record if record.get_attribute("open") else None
