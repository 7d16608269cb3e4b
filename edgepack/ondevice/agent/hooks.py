"""A user's hooks: argument vectors, bounded in time, tried as often as the host says."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

from .arguments import is_file_name, take_seconds, take_size
from .children import CHILDREN, Tail
from .errors import AgentError, bad_request


def run_hook(hook: str, argv: List[str], timeout_s: float, environment: Dict[str, str]) -> Dict[str, Any]:
    """Runs a user's hook: an argument vector, no shell, bounded in time; ``code`` is None where it ran out of time."""
    outcome: Dict[str, Any] = {"hook": hook, "argv": argv, "code": None, "output": ""}
    home = os.path.expanduser("~")
    try:
        child = CHILDREN.start(
            argv, stdin=subprocess.DEVNULL, env=environment, cwd=home if os.path.isdir(home) else "/"
        )
    except OSError as error:
        return dict(outcome, code=127, output=f"{argv[0]}: {error.strerror}")
    tail = Tail(child.stdout)
    try:
        outcome["code"] = child.wait(timeout_s)
        CHILDREN.done(child)
    except subprocess.TimeoutExpired:
        CHILDREN.kill(child)
    return dict(outcome, output=tail.text())


def hook_environment(root: str, app: str, release: str) -> Dict[str, str]:
    """A hook's environment; ``systemctl --user`` needs XDG_RUNTIME_DIR, which a bare SSH login lacks."""
    environment = dict(os.environ, EDGEPACK_ROOT=root, EDGEPACK_APP=app, EDGEPACK_RELEASE=release)
    runtime = f"/run/user/{os.getuid()}"
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    return environment


def take_command(hooks: Dict[str, Any], key: str) -> List[str]:
    """A hook's argument vector; empty where there is none."""
    argv = hooks.get(key)
    if argv is None:
        return []
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) and is_file_name(a) for a in argv):
        raise bad_request(f"The hook {key!r} is not a list of arguments.")
    return argv


class Hooks:
    """The hooks of one activation: ``after_activate`` once, ``health`` until it says yes or its tries are used up."""

    def __init__(self, hooks: Any) -> None:
        if hooks is None:
            hooks = {}
        if not isinstance(hooks, dict):
            raise bad_request("'hooks' is not an object.")
        self.after = take_command(hooks, "after_activate")
        self.health = take_command(hooks, "health")
        self.timeout_s = take_seconds(hooks, "hook_timeout_s", 60.0)
        self.health_timeout_s = take_seconds(hooks, "health_timeout_s", 10.0)
        retries = hooks.get("health_retries")
        self.health_tries = 1 + (take_size(hooks, "health_retries") if retries is not None else 3)

    def run(self, environment: Dict[str, str]) -> Tuple[List[Dict[str, Any]], Optional[AgentError]]:
        """What each hook did, and the failure that undoes the activation, if there is one."""
        ran: List[Dict[str, Any]] = []
        if self.after:
            ran.append(run_hook("after_activate", self.after, self.timeout_s, environment))
            if ran[-1]["code"] != 0:
                return ran, hook_error("hook-failed", ran[-1], self.timeout_s)
        for attempt in range(self.health_tries if self.health else 0):
            if attempt:
                time.sleep(1.0)
            ran = [hook for hook in ran if hook["hook"] != "health"]
            ran.append(run_hook("health", self.health, self.health_timeout_s, environment))
            if ran[-1]["code"] == 0:
                break
        if self.health and ran[-1]["code"] != 0:
            return ran, hook_error("health-failed", ran[-1], self.health_timeout_s)
        return ran, None


def hook_error(code: str, hook: Dict[str, Any], timeout_s: float) -> AgentError:
    """The failure of a hook, with what it printed last."""
    how = f"ran longer than {timeout_s:g} s" if hook["code"] is None else f"ended with {hook['code']}"
    lines = hook["output"].strip().splitlines()
    said = f" Its last line: {lines[-1][:300]}" if lines else ""
    return AgentError(
        code,
        f"The hook {hook['hook']} ({' '.join(hook['argv'])[:200]}) {how}.{said}",
        "Mend the hook or the release; with --json, the error's details hold all that it printed.",
        hook=hook["hook"],
        argv=hook["argv"],
        exit=hook["code"],
        output=hook["output"],
    )
