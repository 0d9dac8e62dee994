"""The live page in a real browser, before an embedded broker and workers that come and go."""

import contextlib
import io
import threading

import numpy as np
import pytest
from astropy.io import fits

from detector.fitsheader import Limits
from stream.messages import EXAMINED, FRAMES, LENSES, MERGERS, REJECTED, STREAKS, Output
from stream.watch import Watch
from tests.stream.chromium import PALE_TEXT, open_browser, press, resize, text_of, until
from tests.stream.topics import finish, read_all, read_avro, send, start_worker

pytestmark = pytest.mark.embedded

STREAKS_A_FRAME = 3
OBJECTS_A_FRAME = 2  # of lenses, and as many mergers
TAB, ENTER, ESCAPE = "\ue004", "\ue007", "\ue00c"
MISCHIEF = "<img src=x onerror=document.title='caught'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@contextlib.contextmanager
def watching(settings):
    watch = Watch(settings.model_copy(update={"watch_port": 0}), Limits())
    thread = threading.Thread(target=watch.serve, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.close()
        thread.join(10)


def frame(exposure, ccd, number):
    pixels = np.random.default_rng(number).normal(100, 5, (96, 128)).astype(np.float32)
    image = fits.PrimaryHDU(pixels)
    image.header.update({"EXPTIME": 300.0, "DATE-OBS": "2024-05-06T01:00:00"})
    content = io.BytesIO()
    image.writeto(content)
    headers = (("exposure", exposure.encode()), ("ccd", ccd.encode()), ("name", f"night/{number}.fits".encode()))
    return Output(FRAMES, f"{exposure}/{ccd}".encode(), content.getvalue(), headers)


def totals(browser):
    names = ("examined", "refused", "streaks")
    return tuple(int(text_of(browser, f"#total-{name} dd").replace(",", "") or -1) for name in names)


def in_topics(settings):
    return len(read_avro(settings, EXAMINED)), len(read_all(settings, REJECTED)), len(read_avro(settings, STREAKS))


def work(settings, count):
    found = ("--streaks", str(STREAKS_A_FRAME), "--objects", str(OBJECTS_A_FRAME))
    status, said = finish(start_worker(settings, "--fits", *found, "--count", str(count)))
    assert status == 0, said


def loaded(browser, selector):
    """The pictures that are there, as natural widths; those that are not loaded are 0."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((i) => i.complete ? i.naturalWidth : 0)", selector
    )


def console_errors(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]


def test_a_night_on_the_page(embedded_settings, browser):
    """It fills, follows a second worker, leads to the pixels by keyboard, fits screen and phone, day and night."""
    settings = embedded_settings
    browser.get_log("browser")
    with watching(settings) as watch:
        resize(browser, 1366)
        browser.get(watch.url)
        until(lambda: "nothing came yet" in text_of(browser, "#status"))

        send(settings, [frame(MISCHIEF, "1-1", 1), frame("E1", "1-2", 2), frame("E2", "1-1", 3)])
        work(settings, 3)
        until(lambda: totals(browser) == (3, 0, 3 * STREAKS_A_FRAME))
        # A worker ends, another one comes: the page goes on by itself.
        send(settings, [frame("E2", "1-2", 4), Output(FRAMES, b"E3/1-1", b"rubbish")])
        work(settings, 2)
        until(lambda: totals(browser) == (4, 1, 4 * STREAKS_A_FRAME))
        assert totals(browser) == in_topics(settings)
        for name, topic in (("lenses", LENSES), ("mergers", MERGERS)):
            assert text_of(browser, f"#total-{name} dd") == str(len(read_avro(settings, topic)))
        until(lambda: text_of(browser, ".gauge:nth-child(2) b") == "0")
        assert "Following" in text_of(browser, "#status")
        assert "refused: not-fits" in text_of(browser, "a[href='#ccd/1-1']")
        assert text_of(browser, "a[href='#ccd/1-2'] .word") == f"working, {STREAKS_A_FRAME} streaks"
        assert "not-fits" in text_of(browser, "#refusals")
        until(lambda: loaded(browser, "#frames img") == [128] * 4)
        assert min(until(lambda: loaded(browser, "#alert-rows img"))[:3]) >= 40
        assert MISCHIEF in text_of(browser, "#frames")
        assert browser.title == "Needlestream"

        # From a CCD to its frames, from an alert to its pixels, without a mouse.
        browser.execute_script("document.querySelector(\"a[href='#ccd/1-1']\").focus()")
        press(browser, ENTER)
        until(lambda: text_of(browser, "dialog[open] h2") == "CCD 1-1")
        until(lambda: loaded(browser, "dialog img") == [128, 128])
        press(browser, ESCAPE)
        until(lambda: not text_of(browser, "dialog[open] h2"))
        assert browser.switch_to.active_element.get_attribute("href").endswith("#ccd/1-1")
        browser.execute_script("document.querySelector('#alert-rows a').focus()")
        press(browser, ENTER)
        until(lambda: text_of(browser, "dialog[open] h2").startswith("Alert "))
        until(lambda: len(found := loaded(browser, "dialog img")) == 2 and min(found) > 0)
        assert browser.execute_script("return document.querySelectorAll('dialog polygon.chosen').length") == 1
        press(browser, ESCAPE)
        # Lenses and mergers stand in the frames, and lead to their pixels too.
        for name in ("lens", "merger"):
            drawn = f"#frames li:first-child circle.{name}"
            assert len(browser.find_elements("css selector", drawn)) == OBJECTS_A_FRAME
        browser.execute_script("document.querySelector('#object-rows').scrollIntoView()")
        until(lambda: max(loaded(browser, "#object-rows img")) == 128)
        browser.execute_script("document.querySelector('#object-rows a').focus()")
        press(browser, ENTER)
        until(lambda: text_of(browser, "dialog[open] h2").startswith(("Lens ", "Merger ")))
        until(lambda: len(found := loaded(browser, "dialog img")) == 2 and min(found) > 0)
        assert browser.execute_script("return document.querySelectorAll('dialog circle.chosen').length") == 1
        press(browser, TAB)
        assert browser.execute_script("return document.activeElement.matches(':focus-visible')")
        press(browser, ESCAPE)

        grounds = set()
        for width in (1366, 390):
            for scheme in ("light", "dark"):
                resize(browser, width, scheme=scheme)
                assert browser.execute_script("return document.documentElement.scrollWidth") <= width
                assert browser.execute_script(PALE_TEXT) == []
                grounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2
        assert console_errors(browser) == []
