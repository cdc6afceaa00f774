"""A headless Chromium that a test drives with the DevTools protocol, through two pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
TIMEOUT = 60.0  # seconds, of every wait


class Browser:
    """One page. `messages` are its errors and warnings: of scripts, of the policy, of requests."""

    def __init__(self, width: int = 1200, height: int = 1300) -> None:
        self.messages: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # Chromium reads commands from the descriptor 3 and writes answers to 4.
        script = f'exec "$@" 3<&{commands} 4>&{answers}'
        flags = [*FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(CHROMIUM), *flags, "about:blank"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._received = b""
        self._number = 0
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._commands)
        self._process.terminate()
        self._process.wait(TIMEOUT)
        os.close(self._answers)
        self._profile.cleanup()

    def call(self, method: str, **parameters: object) -> dict:
        """Send a command, and return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def value(self, expression: str) -> object:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + TIMEOUT
        while not self.value(expression):
            shown = self.value("document.body.innerText")
            assert time.monotonic() < end, f"{expression} never became true:\n{shown}"
            time.sleep(0.1)

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A point of the window: at parts x and y (0 to 1) of an element, which is scrolled to."""
        left, top, width, height = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        return left + x * width, top + y * height

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Press the mouse at a place of an element."""
        at = dict(zip("xy", self.place(selector, x, y), strict=True))
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def drop(self, selector: str, file: Path) -> None:
        """Drop a file on an element."""
        at = dict(zip("xy", self.place(selector), strict=True))
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **at)

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in a form."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _next(self) -> dict:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], TIMEOUT)
            assert ready, "Chromium does not answer"
            data = os.read(self._answers, 2**20)
            assert data, "Chromium has ended"
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict) -> None:
        """Keep what the page reports as wrong."""
        match message:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.messages.append(json.dumps(details))
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.messages.append(json.dumps(entry))
            case {"method": "Runtime.consoleAPICalled", "params": {"type": kind, "args": args}}:
                self.messages.append(f"{kind}: {json.dumps(args)}")
