"""A count as a technician makes it: simulated microscope, real Chromium, the keyboard alone on the board's small screen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the web extra")
pytest.importorskip("selenium", reason="needs selenium")

from eyes import SIZES, Eyes
from pages import Browser, copy_of, make_session, queued, served
from selenium.webdriver.common.keys import Keys

from nca_edge import RESEARCH_USE
from nca_edge.i18n import LANGUAGES
from nca_edge.session import Session, State

TARGET = 8
OTHER = {"4": "Monocyte", "6": "Basophil"}
"""Two keys: one of them is a correction, whatever the model said."""

CUT_OFF = """[...document.querySelectorAll('button, .button, .top a')]
  .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)"""
FAINT = """(() => {
  const light = (c) => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const of = (css) => {
    const [r, g, b, a = 1] = css.match(/[\\d.]+/g).map(Number);
    return a ? 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b) : null;
  };
  const behind = (e) => e ? of(getComputedStyle(e).backgroundColor) ?? behind(e.parentElement) : 1;
  const said = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll('body *')].filter(said).filter((e) => {
    if (e.disabled || e.closest(':disabled, .off, script, [hidden]')) return false;
    const [a, b] = [of(getComputedStyle(e).color), behind(e)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map((e) => `${e.tagName} ${e.innerText}`);
})()"""
"""Texts whose contrast is below 4.5."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_session(tmp_path_factory.mktemp("browser") / "Slide 7", 10, "Amina")


@pytest.fixture
def page(kept: Path, eyes: Eyes) -> Iterator[Browser]:
    with served("--session", copy_of(kept)) as browser:
        eyes.driver.get_log("browser")  # what was said before is not this page's word
        eyes.driver.get(browser.url)
        yield browser
        eyes.driver.get("about:blank")


def correct(eyes: Eyes) -> str:
    """Name the cell of the review otherwise than the model; its id."""
    cell = str(eyes.run("document.querySelector('.palette button').dataset.json"))
    says = eyes.text(".says b")
    key = next(key for key, name in OTHER.items() if name != says)
    eyes.keys(key)
    eyes.until("document.querySelector('.palette button')?.dataset.json !== arguments[0]", cell)
    return cell.split('"')[3]


def test_a_count_from_the_first_image_to_the_signature(eyes: Eyes, tmp_path: Path) -> None:
    folder = tmp_path / "Slide 7"
    eyes.size("board")
    with served("test:?once=1&fps=15", "--out", folder, "--target", TARGET) as server:
        eyes.driver.get(server.url)
        assert eyes.run("location.search") == "" and RESEARCH_USE in eyes.text("body")
        eyes.until("document.querySelector('#live').naturalWidth > 0")
        eyes.until(
            "document.querySelectorAll('#boxes rect').length > 0 && document.querySelectorAll('.tile').length > 1", seconds=120
        )
        for size in SIZES:
            eyes.size(size)
            eyes.picture(f"count-{size}")
        eyes.size("board")
        eyes.keys("f")  # to sign, much too early
        eyes.until("location.pathname === '/sign'")
        eyes.run("document.getElementById('name').focus()")
        eyes.keys("Amina Otieno", Keys.ENTER)
        eyes.until("document.getElementById('say').innerText.includes('Not signed')")
        assert "Counting has not ended" in eyes.text("#say") and "Not yet reviewed" in eyes.text("#say")
        eyes.picture("sign-refused-board")
        eyes.keys(Keys.ESCAPE, "c")
        eyes.until("document.querySelector('#lamp')?.dataset.field === 'stopped'", seconds=240)
        assert f"{TARGET} of {TARGET} leukocytes" in eyes.text(".progress")

        eyes.keys("q")
        eyes.until("location.pathname === '/queue'")
        eyes.picture("review-board")
        waiting = int(eyes.text("#queued"))
        eyes.keys("6")  # nobody has said yet who reviews
        eyes.until("location.pathname === '/who'")
        eyes.keys("Amina Otieno", Keys.ENTER)
        eyes.until("location.pathname === '/queue'")
        corrected = [correct(eyes), correct(eyes)]
        eyes.keys("u")
        eyes.until("document.getElementById('queued').innerText === arguments[0]", str(waiting - 1))
        corrected = [*corrected[:1], correct(eyes), correct(eyes)]

        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        eyes.until("document.getElementById('say').innerText.includes('lost')")
        eyes.picture("lost-board")
    port = int(server.place.rpartition(":")[2])
    with served("--session", folder, "--port", port):
        eyes.until("document.getElementById('say').hidden && location.pathname === '/queue'")  # it came back by itself
        assert int(eyes.text("#queued")) == waiting - 3
        while eyes.run("document.querySelector('.palette') !== null"):
            correct(eyes) if eyes.text(".palette button[data-class-key='1']") else None
        eyes.keys(Keys.ENTER)
        eyes.until("location.pathname !== '/queue'")
        if eyes.run("location.pathname === '/cells'"):
            eyes.picture("cells-few-board")
            eyes.keys("a")
            eyes.until("document.querySelector('[data-do=accept]') === null")
        eyes.keys("f")
        eyes.until("location.pathname === '/sign'")
        eyes.picture("sign-board")
        eyes.run("document.getElementById('name').focus()")
        eyes.keys("Amina Otieno", Keys.ENTER)
        eyes.until("document.querySelector('.statement.done')?.innerText.includes('Amina Otieno')")
        eyes.driver.refresh()
        assert "Amina Otieno" in eyes.text(".statement.done")
        eyes.picture("signed-board")
        eyes.listen()
        assert {address for address in eyes.asked if not address.startswith((f"http://{server.place}/", "data:"))} == set()
    with Session.open(folder, read_only=True) as session:
        names = {cell.id: (cell.label, cell.human_label) for cell in session.cells()}
        assert session.state is State.SIGNED and all(names[cell][0] != names[cell][1] for cell in corrected)


def test_a_cell_is_corrected_with_arrows_and_key_with_the_mouse_and_taken_back(page: Browser, eyes: Eyes) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    eyes.size("board")
    eyes.keys("g")
    eyes.until("location.pathname === '/cells'")
    assert eyes.run("document.querySelectorAll('.tile').length") == 24
    assert eyes.run("Math.max(...[...document.querySelectorAll('.tile')].map((t) => t.getBoundingClientRect().bottom))") <= 480
    count = "document.querySelector('[data-label=basophil] b').innerText"
    before = int(eyes.run(count))
    eyes.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    at = "[...document.querySelectorAll('.tile')].indexOf(document.activeElement)"
    assert eyes.run(at) == 9
    eyes.keys("6")
    eyes.until(f"{count} === arguments[0]", str(before + 1))
    tile = eyes.driver.find_element(By.CSS_SELECTOR, ".tile")
    ActionChains(eyes.driver).drag_and_drop(tile, eyes.driver.find_element(By.CSS_SELECTOR, "[data-label=basophil]")).perform()
    eyes.until(f"{count} === arguments[0]", str(before + 2))
    eyes.keys("u")
    eyes.until(f"{count} === arguments[0]", str(before + 1))
    eyes.keys("n")
    eyes.until("location.search.includes('page=2')")
    eyes.keys("o")
    assert eyes.run("getComputedStyle(document.querySelector('.overlay')).display") == "block"
    eyes.keys(Keys.ARROW_RIGHT, Keys.ENTER)
    eyes.until("location.pathname.startsWith('/cell/')")
    eyes.keys(Keys.ESCAPE)
    eyes.until("location.pathname === '/cells' && location.search.includes('page=2')")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_fits_every_screen_in_every_language(page: Browser, eyes: Eyes, language: str) -> None:
    """No sideways scrolling, nothing cut off, nothing untranslated, no word in the browser's console."""
    eyes.run("change('language', {language: arguments[0]})", language)
    eyes.until("document.documentElement.lang === arguments[0]", language)
    for path in ("/", "/cells", "/queue", "/sign", "/who", "/cell/000001-001"):
        eyes.driver.get(f"http://{page.place}{path}")
        for size in SIZES:
            eyes.size(size)
            assert eyes.run("document.documentElement.scrollWidth <= innerWidth"), (path, size)
            assert eyes.run(CUT_OFF) == [], (path, size)
            assert "⟦" not in eyes.text("body")
            if language == "en" or size == "board":
                eyes.picture(f"{path.strip('/').split('/')[0] or 'result'}-{size}-{language}")
    assert [entry["message"] for entry in eyes.driver.get_log("browser")] == []


def test_colours_can_be_read_in_sunlight_and_by_the_colour_blind(page: Browser, eyes: Eyes) -> None:
    """Every text has a contrast of 4.5 or more (WCAG AA), and every mark a sign of its own besides its colour."""
    assert page.do("operator", name="Amina").status == 200
    assert page.do("reclassify", cell=queued(page), label="basophil").status == 200
    signs: dict[str, str] = {}
    for path in ("/", "/cells", "/cells?page=2", "/queue", "/sign"):
        eyes.driver.get(f"http://{page.place}{path}")
        assert eyes.run(FAINT) == [], path
        marks = eyes.run("[...document.querySelectorAll('.mark')].map((e) => [e.classList[1], e.innerText])")
        signs |= {kind: sign.strip() for kind, sign in marks}
    # of the cells that are sure, only a drawn tenth is marked: those that are not stand on the second page
    assert signs.keys() >= {"look", "unsure", "changed", "done"} and len(set(signs.values())) == len(signs)
