"""The page in a real browser, at the width of a desktop and of a phone: `make test-space`. It runs from a gathered folder, as a Space does."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image

from examples.space.classifiers import load_clean
from examples.space.gather import gather


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="needs Gradio: make test-space")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test-space")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt install chromium", allow_module_level=True)

RESULT = re.compile(r"Robust classifier: .+ Clean classifier: .+")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    load_clean()
    folder = tmp_path_factory.mktemp("gathered") / "space"
    gather(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    log = folder.parent / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port)], cwd=folder, env=environment, stdout=out, stderr=out
        )
    try:
        for _ in range(180):
            time.sleep(0.5)
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                continue
        yield f"http://127.0.0.1:{port}/"
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # Chromium refuses its sandbox to root, as which containers run.
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def any_page(request, browser, address, tmp_path):
    size, scheme = request.param
    yield from opened(browser, address, SIZES[size], scheme)


@pytest.fixture
def page(browser, address):
    yield from opened(browser, address, SIZES["desktop"], "light")


def opened(browser, address, size, scheme):
    """The page; what it asks of other machines and what fails in it is an error at the end."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    shown, wrong = context.new_page(), []
    shown.set_default_timeout(60_000)
    local = (address, "data:", f"blob:{address}")
    shown.on("request", lambda request: None if request.url.startswith(local) else wrong.append(request.url))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.goto(address)
    shown.get_by_role("button", name="Certify").wait_for()
    shown.locator("#samples button").nth(9).wait_for()
    yield shown
    context.close()
    assert not wrong


def test_on_a_phone_the_answer_comes_into_view(browser, address, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("only renamed")
    for phone in opened(browser, address, SIZES["phone"], "light"):
        assert phone.evaluate("scrollY") == 0
        phone.locator("input[type=file]").first.set_input_files(bad)
        playwright.expect(phone.get_by_role("alert")).to_be_in_viewport()
        phone.locator("#samples button").first.click()
        playwright.expect(phone.locator("#picture .copies")).to_be_visible()
        phone.get_by_role("button", name="Certify").click()
        playwright.expect(phone.locator("#picture .copies")).to_be_in_viewport()


def certify(page, draws="1,000") -> str:
    page.get_by_role("radio", name=draws).first.check()
    page.get_by_role("button", name="Certify").click()
    playwright.expect(page.locator("#status")).to_have_text(RESULT, timeout=120_000)
    return page.locator("#panels").inner_text()


def test_a_sample_is_certified(any_page, tmp_path):
    any_page.screenshot(path=tmp_path / "start.png", full_page=True)
    shown = certify(any_page)
    assert re.search(r"Certified: \w+ within l2 radius \d\.\d{3}|Abstained: no certificate", shown)
    assert "Running estimate" not in shown
    assert any_page.locator("#picture .copies img").count() == 8
    any_page.wait_for_timeout(500)
    any_page.screenshot(path=tmp_path / "end.png", full_page=True)
    assert any_page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert any_page.locator("#panels .panel").nth(1).bounding_box()["width"] > 250


def test_votes_grow_and_are_called_an_estimate(page):
    page.get_by_role("radio", name="10,000").check()
    page.get_by_role("radio", name="0.25").check()
    page.get_by_role("button", name="Certify").click()
    counted = page.locator("#panels caption").first
    playwright.expect(counted).to_have_text(re.compile(r"Votes of \d"))
    assert "Running estimate, not a certificate" in page.locator("#panels").inner_text()
    first = counted.inner_text()
    playwright.expect(counted).not_to_have_text(first)
    page.get_by_role("button", name="Stop").click()
    playwright.expect(page.locator("#status")).to_have_text("Stopped.")
    playwright.expect(page.locator("#panels")).to_contain_text("Stopped early")
    stopped = counted.inner_text()
    page.wait_for_timeout(1500)
    assert counted.inner_text() == stopped
    page.get_by_role("button", name="Certify").click()
    playwright.expect(page.locator("#status")).to_have_text("Certifying.")
    page.get_by_role("button", name="Certify").click()  # begins anew
    playwright.expect(page.locator("#panels")).to_contain_text("Running estimate")
    page.get_by_role("radio", name="1.0").check()
    playwright.expect(page.locator("#picture")).to_contain_text("at sigma 1")
    playwright.expect(page.locator("#panels")).to_contain_text("No votes yet.")
    page.wait_for_timeout(1500)
    playwright.expect(page.locator("#panels")).to_contain_text("No votes yet.")


def test_all_of_it_works_by_keyboard(page):
    def tab_to(condition: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"(() => {{ const e = document.activeElement; return {condition}; }})()"):
                return
        raise AssertionError(f"nothing by Tab where {condition}")

    tab_to("e.closest('#samples') && e.innerText.includes('frog')")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#picture")).to_contain_text("Its label is frog")
    tab_to("e.id === 'upload'")
    with page.expect_file_chooser():
        page.keyboard.press("Enter")
    tab_to("e.closest('#sigma')")
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#picture")).to_contain_text("at sigma 1")
    tab_to("e.closest('#draws')")
    page.keyboard.press("ArrowLeft")
    tab_to("e.id === 'certify'")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#status")).to_have_text(RESULT, timeout=120_000)
    assert page.locator("#status").get_attribute("role") == "status"


def test_a_file_is_certified_and_a_wrong_one_gets_a_word(page, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGBA", (300, 200), (200, 30, 30, 128)).save(good)
    bad.write_text("only renamed")
    field = page.locator("input[type=file]").first
    field.set_input_files(bad)
    playwright.expect(page.get_by_role("alert")).to_contain_text("bad.png is not an image that can be read.")
    page.get_by_role("button", name="Certify").click()
    playwright.expect(page.locator("#status")).to_have_text("Choose an image first.")
    playwright.expect(page.locator("#samples .selected")).to_have_count(0)
    field.set_input_files(good)
    playwright.expect(page.locator("#picture")).to_contain_text("good.png, 300 x 200 pixels. It is resized to 32 x 32")
    assert "Robust classifier" in certify(page)
    # The next choice takes the old result away, that of the first image too, which was chosen at the start.
    page.locator("#samples button").first.click()
    playwright.expect(page.locator("#picture")).to_contain_text("Its label is airplane")
    playwright.expect(page.locator("#samples .selected")).to_have_count(1)
    playwright.expect(page.locator("#panels")).to_contain_text("No votes yet.")
