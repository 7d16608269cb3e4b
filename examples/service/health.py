"""The hook `health`: does the service answer, with the release that was just activated, and does its model run?

python3 health.py [PORT]
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

URL = f"http://127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 8765}/health"

try:
    with urllib.request.urlopen(URL, timeout=5) as answer:
        said = json.load(answer)
except urllib.error.HTTPError as error:
    sys.exit(f"{URL} answers {error.code}: {error.read(500).decode('utf-8', 'replace')}")
except OSError as error:
    sys.exit(f"{URL} does not answer: {error}")
if said["release"] != os.environ["EDGEPACK_RELEASE"]:
    sys.exit(f"The service runs {said['release']}, not {os.environ['EDGEPACK_RELEASE']}.")
