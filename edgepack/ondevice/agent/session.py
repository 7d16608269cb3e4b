"""One session: what its verbs work on, and what they remember of each other."""

from __future__ import annotations

from typing import Any, Dict, Optional, Set, Tuple

from .arguments import take_name
from .disk import confined
from .errors import AgentError, bad_request
from .limits import APP_PATTERN, NAME_PATTERN
from .pin import Pin
from .releases import list_apps
from .wire import Request, Wire


class Session:
    """What a session's verbs share: the channel, the pin, the root, the app, the lock, and what was found so far."""

    def __init__(self, wire: Wire, pin: Optional[Pin] = None) -> None:
        self.wire = wire
        self.pin = pin
        self.root: Optional[str] = None
        self.app: Optional[str] = None
        self.lock_fd: Optional[int] = None
        self.lock_later: Optional[str] = None
        self.holder: Dict[str, Any] = {}
        self.token = ""  # the host's own for its session, by which it knows the lock that a broken line left behind
        self.hashers: Dict[str, Tuple[int, Any]] = {}
        self.weave: Any = None  # the delta under way (weaving.py)
        self.verified: Set[Tuple[str, int, int, int, int]] = set()
        self.rebuilt: Dict[str, str] = {}  # where the broken state files of which apps were kept
        self.setups: Dict[str, str] = {}  # what the releases that this session measured ran with

    def home(self) -> str:
        """The root folder of this session."""
        if self.root is None:
            raise bad_request("The first request must be hello.")
        return self.root

    def choose_app(self, request: Request) -> str:
        """The app that a request is about; it may stay unnamed where the device holds just one."""
        if request.args.get("app") is not None:
            return take_name(request.args, "app", APP_PATTERN)
        if self.app is not None:
            return self.app
        apps = list_apps(self.home())
        if not apps:
            raise AgentError("no-app", f"There is no app in {self.home()} on this device.", "Push a bundle first.")
        if len(apps) > 1:
            raise AgentError(
                "several-apps",
                f"There are several apps on this device: {', '.join(apps)}.",
                "Name one with --app.",
                apps=apps,
            )
        return apps[0]

    def known_app(self, request: Request) -> str:
        """The app that a request is about, which must be on this device."""
        app = self.choose_app(request)
        apps = list_apps(self.home())
        if app not in apps:
            raise AgentError(
                "no-app",
                f"There is no app {app} in {self.home()} on this device (there: {', '.join(apps) or 'none'}).",
                "Push a bundle first, name another app with --app, or another folder with --root.",
                apps=apps,
            )
        return app

    def replay(self, state: Dict[str, Any], request: Request) -> Optional[Dict[str, Any]]:
        """The stored result of an operation that was done before; None for a new one, and for what is only asked."""
        if request.dry_run:
            return None
        stored = state["operations"].get(take_name(request.args, "op", NAME_PATTERN))
        if not isinstance(stored, dict):
            return None
        if isinstance(stored.get("error"), dict):
            raise AgentError.from_json(stored["error"])
        result = stored.get("result")
        return result if isinstance(result, dict) else None

    def floor(self) -> Dict[str, Any]:
        """What the counters of a pinned device do not fall below; empty on others."""
        return {} if self.pin is None else self.pin.floor

    def runtime_folder(self, runtime_id: str) -> str:
        """Where an unpacked runtime lies; a pinned device believes in none that it did not unpack itself."""
        name = runtime_id if self.pin is None else f"{runtime_id}-{self.pin.mark}"
        return confined(self.home(), "runtimes", name)
