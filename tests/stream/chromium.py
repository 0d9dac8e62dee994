"""Debian's Chromium, driven by its own driver: a window of a given size, in the light or in the dark."""

import os
import shutil
import time

import pytest


def open_browser(folder):
    """A browser without a window, with a profile of its own. Where Chromium is missing the test is skipped."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        reason = f"no {' and no '.join(missing)}: install Debian's chromium and chromium-driver"
        if os.environ.get("NEEDLESTREAM_REQUIRE_DEBIAN"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver  # noqa: PLC0415 - only where there is a browser

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    flags = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
    flags += ("disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={folder}")
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def resize(browser, width, height=900, *, scheme="light"):
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)


def text_of(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)


def until(condition, timeout_s=30):
    """What the condition gives once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def press(browser, *keys):
    browser.switch_to.active_element.send_keys(*keys)


# Text whose contrast to what lies behind it is under 4.5 (WCAG 2.2, 1.4.3); text on pictures has a black ground.
PALE_TEXT = """
const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const [r, g, b] = rgb(colour).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (rgb(colour)[3] !== 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const words = [...document.querySelectorAll("body *")].filter((e) => e.getClientRects().length &&
  [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
return words.flatMap((e) => {
  const style = getComputedStyle(e);
  const [a, b] = [light(e instanceof SVGElement ? style.fill : style.color), light(ground(e))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  return contrast < 4.5 ? [`${e.tagName} ${e.textContent.slice(0, 40)}: ${contrast.toFixed(2)}`] : [];
});
"""
