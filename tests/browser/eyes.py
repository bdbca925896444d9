"""What the browser tests see and do: screens, keys, pictures, the addresses that pages ask for."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

SIZES = {"board": (800, 480), "desk": (1280, 800), "phone": (390, 844)}
"""Name -> (width, height) px: a 7-inch screen, a laptop, a telephone."""
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
)  # fmt: skip


class Eyes:
    """The browser, and what a person would do with it."""

    def __init__(self, driver: Any, pictures: Path) -> None:
        self.driver, self.pictures = driver, pictures
        self.asked: list[str] = []
        """Addresses that pages asked for."""

    def size(self, name: str) -> None:
        """As a screen of ``SIZES``."""
        width, height = SIZES[name]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def keys(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def run(self, script: str, *values: object) -> Any:
        """JavaScript, asked as ``return ...``."""
        return self.driver.execute_script(f"return {script}", *values)

    def text(self, selector: str = "main") -> str:
        """What stands there."""
        return str(self.run("document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def until(self, script: str, *values: object, seconds: float = 30.0) -> Any:
        """Wait until the script answers; a page that is just being left answers nothing."""
        from selenium.common.exceptions import JavascriptException, WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, 0.05, ignored_exceptions=(JavascriptException, WebDriverException))
        return waiting.until(lambda _: self.run(script, *values), f"{script} {values}: {self.text('body')[:600]}")

    def picture(self, name: str) -> None:
        """Keep what is on the screen, small enough for a handbook."""
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as image:
            small = image.convert("RGB").quantize(224, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        self.pictures.mkdir(parents=True, exist_ok=True)
        small.save(self.pictures / f"{name}.png", optimize=True)

    def listen(self) -> None:
        """Note which addresses were asked for since the last call."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])


@contextmanager
def chromium(pictures: Path) -> Iterator[Eyes]:
    """A headless Chromium; FileNotFoundError says what is missing."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        raise FileNotFoundError("needs chromium and chromedriver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in QUIET:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Eyes(driver, pictures)
    finally:
        driver.quit()
        driver.service.stop()
