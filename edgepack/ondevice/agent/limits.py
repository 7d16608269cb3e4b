"""Numbers and names that several of the agent's modules share."""

from __future__ import annotations

import re

PROTOCOL = 1
SCHEMA = 1
BODY_LIMIT = 16 * 1024 * 1024
CHUNK = 1024 * 1024
SILENCE_S = 60.0
MANIFEST_LIMIT = 1024 * 1024
DISK_MARGIN = 1024 * 1024
HISTORY_KEPT = 200
APP_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
RELEASE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}-[0-9a-f]{12}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,199}")
SIGNATURE = "manifest.json.sig"
DEFAULT_ROOT = "~/.edgepack"
