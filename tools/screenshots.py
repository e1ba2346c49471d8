"""Screenshots of the page for the docs, made in headless Chromium as a person clicks.

    python tools/screenshots.py OUTPUT_FOLDER [NAME ...]

NAME: sessions, wrong, swap, german, queue, phone; all by default.  Needs playwright, Chromium and, for `swap`, games.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from reverie.engine.loading.models import WEIGHTS

WALK = ["--world", "city", "--set", "maps=downtown", "--set", "place=2", "--set", "view=walk", "--model", "nano"]
QUALITY = 82
DROP = """([name, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(bytes)], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
HOVER = """() => {
  const files = new DataTransfer();
  files.items.add(new File(["x"], "photo.png"));
  document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@contextlib.contextmanager
def serving(*options: str) -> Iterator[str]:
    """Runs `reverie serve`; the page's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "reverie", "serve", "--port", str(port), *options]
    server = subprocess.Popen(command)
    address = f"http://127.0.0.1:{port}/"
    try:
        until_ready(address, server)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def until_ready(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}health") as answer:
            if answer.status == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the server ended")


class Camera:
    """Takes the screenshots of one page."""

    def __init__(self, folder: Path, page: Page) -> None:
        self.folder, self.page = folder, page
        self.lines: list[Image.Image] = []

    def shoot(self, name: str) -> None:
        image = Image.open(io.BytesIO(self.page.screenshot()))
        image.convert("RGB").save(self.folder / f"{name}.jpg", quality=QUALITY, optimize=True)
        print(name, flush=True)

    def strip(self, name: str, words: str) -> None:
        """The line with these words that the page says, alone."""
        self.page.wait_for_selector(f"#message.shown:has-text('{words}')")
        time.sleep(0.5)
        box = self.page.locator("#message").bounding_box()
        assert box is not None
        clip = {"x": box["x"] - 60, "y": box["y"] - 12, "width": box["width"] + 120, "height": box["height"] + 24}
        self.lines.append(Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB"))
        print(name, self.page.inner_text("#message"), flush=True)

    def hold(self, keys: list[str], seconds: float) -> None:
        for key in keys:
            self.page.keyboard.down(key)
        time.sleep(seconds)
        for key in keys:
            self.page.keyboard.up(key)

    def opened(self, address: str) -> None:
        self.page.goto(address)
        self.playing()

    def playing(self) -> None:
        self.page.wait_for_selector("body[data-state=playing]")
        time.sleep(1.0)


def new_camera(browser: Browser, folder: Path, **options: object) -> Camera:
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(120_000)
    return Camera(folder, page)


def sessions(browser: Browser, folder: Path) -> None:
    """The map, time, saves, settings, help, an image that is dropped."""
    with tempfile.TemporaryDirectory() as scratch:
        night = Path(scratch) / "nano-night"
        night.symlink_to(WEIGHTS / "nano")
        with serving("--model", "nano", "--model", str(night), "--saves", f"{scratch}/saves") as address:
            camera = new_camera(browser, folder)
            page = camera.page
            camera.opened(address)
            tiles = page.locator("button.tile[data-id^=scene-temple]")
            tiles.first.click()
            camera.playing()
            camera.hold(["KeyW"], 4)
            page.keyboard.press("m")
            camera.hold(["KeyW"], 3)
            camera.shoot("map")
            page.keyboard.press("m")
            for name in ("to the bridge", "before the turn", "the long way"):
                page.click("#keep")
                page.fill("#save-name", name)
                page.click("#save")
                page.wait_for_selector(f"#saves-list li:has-text('{name}')")
                page.wait_for_selector("#saves-list img")
                page.click("#saves-close")
                camera.playing()
                camera.hold(["KeyW"], 2)
            page.click("#slider", position={"x": 560, "y": 16})
            page.wait_for_selector("body.sought[data-state=paused]")
            page.wait_for_selector("#slider[aria-busy=false]")
            time.sleep(6)  # the line about the save goes
            camera.shoot("rewind")
            page.click("#fork")
            page.click("#keep")
            page.wait_for_selector("#saves-list img")
            time.sleep(0.5)
            camera.shoot("saves")
            page.click("#saves-close")
            camera.playing()
            page.keyboard.press("Comma")
            time.sleep(0.5)
            camera.shoot("settings")
            page.keyboard.press("Escape")
            camera.playing()
            page.keyboard.press("?")
            time.sleep(0.5)
            camera.shoot("help")
            page.keyboard.press("Escape")
            page.evaluate(HOVER)
            time.sleep(0.5)
            camera.shoot("drop")
            page.context.close()


def wrong(browser: Browser, folder: Path) -> None:
    """What is said of bad files, a browser without room, a link to another model and a second tab; a video's frame."""
    with tempfile.TemporaryDirectory() as scratch, serving("--saves", f"{scratch}/saves") as address:
        camera = new_camera(browser, folder)
        page = camera.page
        camera.opened(address)
        page.click("button.tile[data-id^=scene-temple]")
        camera.playing()
        camera.hold(["KeyW"], 4)
        page.click("#keep")
        page.fill("#save-name", "a walk")
        page.click("#save")
        with page.expect_download() as download:
            page.click("#saves-list li:has-text('a walk') button:has-text('Export')")
        session = Path(scratch) / "walk.reverie"
        download.value.save_as(session)
        page.click("#saves-close")
        camera.playing()
        bad_files(camera, session.read_bytes())
        page.goto("about:blank")
        page.goto(f"{address}#start=gone&seed=3&model=nano-day")
        camera.strip("model", "not on this server")
        save_lines(camera)
        camera.playing()
        token = page.evaluate("sessionStorage.getItem('reverie.session')")
        other = page.context.new_page()
        other.add_init_script(f"if (location.host) sessionStorage.setItem('reverie.session', '{token}')")
        other.goto(address)
        page.wait_for_selector("body[data-state=failed]")
        time.sleep(1)
        camera.shoot("taken")
        page.context.close()
        save_overlay(folder, session)


def bad_files(camera: Camera, data: bytes) -> None:
    page = camera.page
    page.evaluate(DROP, ["cut.reverie", list(data[:-60])])
    camera.strip("cut", "cut short")
    page.evaluate(DROP, ["other.reverie", list(of_model(data, "nano/000000000000/float32/cpu"))])
    camera.strip("other", "differ")
    page.evaluate(
        "() => { IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    )
    page.click("#keep")
    page.fill("#save-name", "no room")
    page.click("#save")
    page.wait_for_selector("#saves-list li:has-text('no room')")
    page.click("#saves-close")
    camera.strip("room", "no room")
    page.reload()
    camera.playing()


def save_lines(camera: Camera) -> None:
    """All lines of a page below each other."""
    lines = camera.lines
    width, height = max(line.width for line in lines), sum(line.height for line in lines)
    sheet, y = Image.new("RGB", (width, height), "#0b0b12"), 0
    for line in lines:
        sheet.paste(line, ((width - line.width) // 2, y))
        y += line.height
    sheet.save(camera.folder / "lines.jpg", quality=QUALITY, optimize=True)


def save_overlay(folder: Path, session: Path) -> None:
    """The last frame of a session's video with its keys."""
    video = session.with_suffix(".gif")
    command = [sys.executable, "-m", "reverie", "replay", str(session), "-o", str(video), "--overlay", "--scale", "3"]
    subprocess.run(command, check=True)
    with Image.open(video) as frames:
        frames.seek(getattr(frames, "n_frames", 1) - 1)
        frames.convert("RGB").save(folder / "overlay.jpg", quality=QUALITY, optimize=True)


def of_model(data: bytes, model: str) -> bytes:
    """A session's file as another model would have written it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            part = old.read(name)
            if name == "session.json":
                part = json.dumps({**json.loads(part), "model": model}).encode()
            new.writestr(name, part)
    return buffer.getvalue()


def swap(browser: Browser, folder: Path) -> None:
    """A game, the dream of it, both, and a saved session of both."""
    with tempfile.TemporaryDirectory() as scratch, serving(*WALK, "--saves", scratch) as address:
        camera = new_camera(browser, folder)
        page = camera.page
        camera.opened(address)
        camera.hold(["KeyW"], 3)
        camera.shoot("game")
        page.keyboard.press("g")
        page.wait_for_selector("body[data-view=dream]")
        camera.hold(["KeyW"], 4)
        camera.shoot("dream")
        page.keyboard.press("v")
        page.wait_for_selector("body[data-view=both]")
        camera.hold(["KeyW", "ArrowRight"], 2)
        camera.hold(["KeyW"], 8)
        camera.shoot("both")
        page.click("#keep")
        page.fill("#save-name", "where the dream drifts")
        page.click("#save")
        page.wait_for_selector("#saves-list img")
        time.sleep(0.5)
        camera.shoot("both-saved")
        page.click("#saves-list button:has-text('Play on')")
        camera.playing()
        page.wait_for_selector("body[data-view=both]")
        camera.shoot("both-loaded")
        page.context.close()


def german(browser: Browser, folder: Path) -> None:
    """Another language."""
    with serving() as address:
        camera = new_camera(browser, folder, locale="de-DE")
        camera.opened(address)
        camera.page.keyboard.press("?")
        time.sleep(1)
        camera.shoot("german")
        camera.page.context.close()


def queue(browser: Browser, folder: Path) -> None:
    """More players than there are places."""
    with serving("--max-players", "1") as address:
        cameras = [new_camera(browser, folder) for _ in range(3)]
        cameras[0].opened(address)
        for camera in cameras[1:]:
            camera.page.goto(address)
            camera.page.wait_for_selector("body[data-state=waiting]")
        time.sleep(1)
        cameras[-1].shoot("queue")
        for camera in cameras:
            camera.page.context.close()


def phone(browser: Browser, folder: Path) -> None:
    """A phone upright, with the saved sessions, and sideways."""
    with tempfile.TemporaryDirectory() as scratch, serving("--saves", scratch) as address:
        camera = new_camera(browser, folder, **PHONE)
        camera.opened(address)
        time.sleep(2)
        camera.shoot("phone")
        camera.page.tap("#keep")
        camera.page.fill("#save-name", "on the way")
        camera.page.tap("#save")
        camera.page.wait_for_selector("#saves-list img")
        time.sleep(1)
        camera.shoot("phone-saves")
        camera.page.tap("#saves-close")
        camera.page.set_viewport_size({"width": 844, "height": 390})
        time.sleep(6)
        camera.page.tap("#stage")
        camera.playing()
        camera.shoot("phone-sideways")
        camera.page.context.close()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    scenes = {one.__name__: one for one in (sessions, wrong, swap, german, queue, phone)}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for name in sys.argv[2:] or scenes:
            scenes[name](browser, folder)
        browser.close()


if __name__ == "__main__":
    main()
