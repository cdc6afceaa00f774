"""The page in Chromium: a real upload, the result, a click on the timeline, a click on a pixel."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nlnet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from nlnet.config import NonLocalConfig, parse_run
from nlnet.config.text import run_text
from nlnet.demo import CHECKPOINT, VIDEOS
from tests.serve.browser import CHROMIUM, Browser
from tests.serve.conftest import MAX_MB
from tests.serve.running import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
VideoFactory = Callable[..., Path]
READY = "document.querySelector('#about').textContent !== ''"
DONE = "document.querySelector('#status').hidden"
FRAMES = "document.querySelectorAll('#frames .frame').length"
HEAT = "document.querySelectorAll('#maps .frame').length"


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A page without errors: of scripts, of the content policy, of requests."""
    with Browser() as opened:
        yield opened
        assert opened.messages == []


def text(browser: Browser, selector: str) -> str:
    return str(browser.value(f"document.querySelector('{selector}').innerText"))


def test_upload_result_click_attention(server: Server, browser: Browser, video_file: VideoFactory):
    browser.open(server.address)
    browser.wait_for(READY)
    path = video_file("my <b>video</b>.mp4", num_frames=48)
    browser.drop("#drop", path)
    browser.wait_for(f"{FRAMES} === 8 && {DONE}")
    assert text(browser, "#name") == path.name
    rows = "document.querySelectorAll('#windows button')"
    count = browser.value(f"{rows}.length")
    assert isinstance(count, int) and count > 5
    first = browser.value("document.querySelector('#frames img').src")

    browser.click("#timeline", 0.98, 0.3)
    browser.wait_for(f"{rows}[{count - 1}].getAttribute('aria-pressed') === 'true'")
    assert text(browser, f"#windows button:nth-child({count})").split("\n")[0] in text(
        browser, "#chosen"
    )
    # The levels of the video rise: the frames of the last window are others.
    browser.wait_for(f"document.querySelector('#frames img').src !== {first!r}")
    top = browser.value("[...document.querySelectorAll('#top output')].map(e => e.textContent)")
    assert isinstance(top, list) and len(top) == 2
    assert sum(float(each.removesuffix(" %")) for each in top) == pytest.approx(100, abs=0.2)

    browser.click("#frames .frame:nth-child(7)", 0.25, 0.75)
    browser.wait_for(f"{HEAT} === 8")
    found = text(browser, "#maps h3")
    assert "res3.nl0" in found and "frame 6" in found
    row, column = (int(found.split(word)[1].split()[0].strip(",")) for word in ("row ", "column "))
    assert abs(row - 48) <= 1 and abs(column - 16) <= 1  # of 64
    assert browser.value("document.querySelectorAll('#frames .frame b').length") == 1

    for block in ("res3.nl1", "gradcam"):
        browser.value(
            f"(() => {{ const s = document.querySelector('#block'); s.value = '{block}';"
            "s.dispatchEvent(new Event('change')); })()"
        )
        name = block if block != "gradcam" else "Grad-CAM of res5"
        browser.wait_for(f"document.querySelector('#maps h3')?.textContent.includes('{name}')")
    assert text(browser, "#error") == ""


def test_samples_and_refusals(server: Server, browser: Browser, tmp_path: Path):
    browser.open(server.address)
    browser.wait_for(READY)
    browser.click("[data-sample=different]")
    browser.wait_for(f"{FRAMES} === 8 && {DONE}")
    assert text(browser, "#top .bar span") == "different"
    browser.click("#auto")
    browser.wait_for(f"{HEAT} === 8")

    large = tmp_path / "large.mp4"
    large.write_bytes(VIDEOS[0].read_bytes() + bytes(MAX_MB * 10**6))
    browser.choose_file("#file", large)
    browser.wait_for(f"document.querySelector('#error').innerText.includes('{MAX_MB} MB')")

    damaged = tmp_path / "damaged.mp4"
    damaged.write_text("This is a text file.")
    browser.choose_file("#file", damaged)
    browser.wait_for("document.querySelector('#error').innerText.includes('not a video')")
    assert "damaged.mp4" in text(browser, "#error")
    assert browser.value("document.querySelector('#result').hidden") is True
    # The console names the request that was refused, and nothing else is wrong.
    assert all("415" in each for each in browser.messages), browser.messages
    browser.messages.clear()
    browser.choose_file("#file", VIDEOS[0])
    browser.wait_for(f"{FRAMES} === 8 && {DONE} && document.querySelector('#error').hidden")
    assert text(browser, "#top .bar span") == "same"


def test_a_network_without_blocks_offers_gradcam(browser: Browser, tmp_path: Path):
    """This server also listens elsewhere: the page sends the token of its address."""
    plain = tmp_path / "plain.pt"
    write_plain_network(plain)
    with Server((str(plain), "--host", "0.0.0.0", "--port", "0"), tmp_path) as server:
        browser.open(f"http://127.0.0.1:{server.port}/?{server.address.partition('?')[2]}")
        browser.wait_for(READY)
        assert "no non-local block" in text(browser, "#about")
        browser.choose_file("#file", VIDEOS[0])
        browser.wait_for(f"{HEAT} === 8")
        assert "This network has no non-local block" in text(browser, "#hint")
        assert "Grad-CAM of res5" in text(browser, "#maps h3")
        assert browser.value("document.querySelector('#auto').hidden") is True


def write_plain_network(path: Path) -> None:
    """Write the demonstration network without its blocks."""
    demo = read_checkpoint(CHECKPOINT)
    config = demo.provenance.config
    assert config is not None
    run = parse_run(config, str(CHECKPOINT))
    plain = replace(run, model=replace(run.model, non_local=NonLocalConfig()))
    weights = {name: value for name, value in demo.model.items() if ".nl" not in name}
    provenance = replace(demo.provenance, config=run_text(plain))
    write_checkpoint(path, Checkpoint(weights, provenance))
