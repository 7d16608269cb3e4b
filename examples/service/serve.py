"""A long-running service around the model: it runs on the device and answers over HTTP on 127.0.0.1.

    python3 serve.py APP [PORT]

GET / tells which release is loaded; GET /health runs the model once; POST /predict takes a JSON list of samples. The
model is loaded once, so an activation takes effect with a restart: that is what the hook after_activate is for.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(os.environ.get("EDGEPACK_ROOT", "~/.edgepack")).expanduser()
sys.path.insert(0, str(ROOT / "lib"))
import edgepack_device  # noqa: E402 (the door lies in edgepack's folder on this device)

MODEL = edgepack_device.load(sys.argv[1])


class Answers(BaseHTTPRequestHandler):
    """Answers each request in a thread of its own; the model takes them one after the other."""

    def do_GET(self) -> None:
        """Which release, or whether it is well."""
        if self.path == "/health":
            # The shape that this program feeds, not the one that the model wants: a release that changes it is unfit.
            self.predict([[[[0.0]] * 8] * 8])
        else:
            self.say(200, {"release": MODEL.info()["release"]})

    def do_POST(self) -> None:
        """What the model says of some samples."""
        self.predict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def predict(self, samples: object) -> None:
        """Run the model, and say what came of it."""
        try:
            self.say(200, {"release": MODEL.info()["release"], "scores": MODEL.predict(samples).tolist()})
        except ValueError as error:
            self.say(500, {"release": MODEL.info()["release"], "error": str(error)})

    def say(self, status: int, what: object) -> None:
        """Answer with JSON."""
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8765
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()
