"""The page as a person uses it, in a real browser without a window."""

import dataclasses
import shutil
import socket
import threading

import pytest
import uvicorn
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from mvtec_tf.app import labels
from mvtec_tf.app.application import create
from mvtec_tf.data import masks

BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no chromium with its chromedriver"),
]
WIDTHS = (1280, 820, 390)


class Address(str):
    """Of a page, with what it keeps."""


@pytest.fixture
def address(settings, tmp_path, request):
    (tmp_path / "line").mkdir()
    models = str(tmp_path / request.param) if hasattr(request, "param") else settings.models
    app = create(dataclasses.replace(settings, models=models, folders=(str(tmp_path / "line"),)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = Address(f"http://127.0.0.1:{listening.getsockname()[1]}")
    address.kept = app.state.site.kept
    yield address
    server.should_exit = True
    thread.join()
    app.state.site.close()


@pytest.fixture
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def _wait(browser, there):
    # What was found on a page that is being replaced is asked anew.
    return WebDriverWait(browser, 120, ignored_exceptions=[StaleElementReferenceException]).until(there)


def _all(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def test_an_operator_shows_parts_and_sees_why(browser, address, photographs, tmp_path):
    browser.get(address)
    bad = tmp_path / "<b>bad<b>.png"
    bad.write_bytes(b"no image")
    field = browser.find_element(By.NAME, "photographs")
    field.send_keys("\n".join(map(str, [*photographs, bad])))
    _wait(browser, lambda _: len(_all(browser, "#parts > *")) == 3)
    assert len(_all(browser, ".called")) == 2
    assert "<b>bad<b>.png" in _all(browser, ".refused h2")[0].text
    heat = _all(browser, ".heat")[0]
    _wait(browser, lambda _: heat.get_property("naturalWidth") > 0)
    photograph = _all(browser, ".photograph img")[0]
    sizes = [one.size["width"] / one.size["height"] for one in (photograph, heat)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    strength = "const s = document.getElementById('strength'); s.value = 0; s.dispatchEvent(new Event('input'))"
    browser.execute_script(strength)
    assert heat.value_of_css_property("opacity") == "0"
    browser.find_element(By.ID, "outline").click()
    assert not _all(browser, ".outline")[0].is_displayed()
    for width in WIDTHS:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 1000}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.get(f"{address}/threshold")
    value = browser.find_element(By.NAME, "value")
    browser.execute_script("arguments[0].value = 1e6; arguments[0].dispatchEvent(new Event('input'))", value)
    _wait(browser, lambda _: "12 of 12" in browser.find_element(By.ID, "counts").text.replace("\n", " "))
    assert browser.find_element(By.ID, "stopped").text == "0"
    assert browser.execute_script("return document.querySelector('#save [name=value]').value") == "1000000"
    browser.get(f"{address}/review")
    browser.find_element(By.ID, "who").send_keys("Eva")
    part = _all(browser, ".review .part")[0]
    part.find_element(By.CSS_SELECTOR, ".mark").click()
    canvas = part.find_element(By.TAG_NAME, "canvas")
    ActionChains(browser).move_to_element(canvas).click_and_hold().move_by_offset(30, 20).release().perform()
    part.find_element(By.NAME, "defect").send_keys("chip")
    part.find_element(By.CSS_SELECTOR, "button.defective").click()
    _wait(browser, lambda _: len(_all(browser, ".review .part")) == 1)
    listed = labels.records(address.kept)
    assert [(record.label, record.defect) for record in listed] == [(1, "chip")]
    assert 0.002 < masks.read(listed[0].mask, (64, 64)).mean() < 0.3
    browser.get(f"{address}/improve")
    assert browser.find_element(By.NAME, "with_labels").is_selected()
    browser.get(f"{address}/watch")
    assert len(_all(browser, ".hours rect")) > 0
    browser.find_element(By.CSS_SELECTOR, "#sinks summary").click()
    form = browser.find_element(By.CSS_SELECTOR, "#sinks form.narrow")
    Select(form.find_element(By.NAME, "kind")).select_by_value("folder")
    form.find_element(By.NAME, "place").send_keys(str(tmp_path / "line"))
    form.find_element(By.TAG_NAME, "button").click()
    _wait(browser, lambda _: _all(browser, ".sink"))
    _all(browser, ".sink button")[0].click()
    _wait(browser, lambda _: "The test was taken" in browser.find_element(By.ID, "sinks").text)
    # Parts come by themselves and are shown without anybody's doing.
    browser.get(address)
    browser.find_element(By.CSS_SELECTOR, ".watching > details > summary").click()
    browser.find_element(By.NAME, "place").send_keys(str(tmp_path / "line"))
    browser.find_element(By.CSS_SELECTOR, ".watching form button").click()
    _wait(browser, lambda _: "is watched" in browser.find_element(By.ID, "source").text)
    shutil.copy(photographs[1].with_name("003.png"), tmp_path / "line" / "newest.png")
    _wait(browser, lambda _: "newest.png" in browser.find_element(By.ID, "parts").text)
    assert "the page was started: 1;" in browser.find_element(By.ID, "source").text
    _wait(browser, lambda _: (tmp_path / "line" / "3.json").is_file())
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    messages = [line["message"] for line in browser.get_log("performance")]
    asked = [line for line in messages if 'Network.requestWillBeSent"' in line]
    assert asked
    assert not [line for line in asked if '"url":"http' in line and f'"url":"{address}' not in line]


@pytest.mark.parametrize("address", ["none"], indirect=True)
def test_the_first_parts_wait_for_a_name_and_what_is_refused_or_double_is_not_counted(browser, address, toy, tmp_path):
    browser.get(address)
    thumbs, double = tmp_path / "Thumbs.db", tmp_path / "double.png"
    thumbs.write_bytes(b"no image")
    parts = sorted((toy / "flange" / "train" / "good").glob("*.png"))[:15]
    shutil.copy(parts[0], double)
    browser.find_element(By.NAME, "photographs").send_keys("\n".join(map(str, [*parts, thumbs, double])))
    said = browser.find_element(By.ID, "said")
    _wait(browser, lambda _: "the 17 files that you chose are waiting" in said.text)
    assert not _all(browser, "#parts > *")
    browser.find_element(By.CSS_SELECTOR, "#judge [name=who]").send_keys("Eva\n")
    _wait(browser, lambda _: said.text == "Photographs kept as good parts: 15. There already: 1. Refused: 1.")
    _wait(browser, lambda _: "15 good parts were kept." in browser.find_element(By.ID, "so_far").text)
    assert "Thumbs.db" in _all(browser, ".refused h2")[0].text
    assert browser.find_element(By.CSS_SELECTOR, "#first_model [name=who]").get_property("value") == "Eva"
    _all(browser, "#parts form button")[0].click()
    _wait(browser, lambda _: "14 good parts were kept." in browser.find_element(By.ID, "so_far").text)
    log = address.kept.ask("SELECT * FROM labels ORDER BY id")
    assert [row["label"] for row in log] == ["good"] * 15 + ["unclear"]
    assert {row["who"] for row in log} == {"Eva"}
