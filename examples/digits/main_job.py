"""The main job in Python: a trained model goes to a device, is proved there, and is activated.

    python -m edgepack.demo_training .          # leaves digits.keras here
    python main_job.py pi@raspberrypi.local

What the project says (samples, budget, hooks) comes out of edgepack.toml, so that `edgepack deploy` does the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import edgepack
from edgepack.errors import EdgepackError
from edgepack.project import load_project


def main() -> int:
    """Returns the exit code that the same commands have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", help="user@host, or local:/some/folder to try it on this machine")
    parser.add_argument("--model", default="digits.keras")
    parser.add_argument("--target", default="raspberry-pi-4")
    parser.add_argument("--without-runtime", action="store_true", help="the device has numpy and a TFLite runtime")
    options = parser.parse_args()
    try:
        return take(options.model, options.target, options.device, with_runtime=not options.without_runtime)
    except EdgepackError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code


def take(model: str, target: str, device: str, *, with_runtime: bool) -> int:
    """Quantize, bundle, push, check, activate; each step returns the document that its command prints with --json."""
    project = load_project(Path("edgepack.toml"))
    quantized = edgepack.quantize(
        model, target=target, calibration=project.calibration, evaluation=project.eval, output="digits.tflite"
    )
    print(f"quantized  {quantized.model.bytes} bytes, accuracy drop {quantized.accuracy.drop:+.4f}")
    bundled = edgepack.bundle(
        "digits.tflite",
        target=target,
        name=project.name,
        version=project.version,
        output="digits.edgepack",
        with_runtime=with_runtime,
    )
    print(f"bundled    {bundled.release}")
    pushed = edgepack.push("digits.edgepack", device)
    print(f"pushed     {pushed.bytes.sent} bytes")
    checked = edgepack.check(device, app=project.name, budget=project.budget)
    print(f"checked    {checked.verdict}: {' '.join(checked.reasons)}")
    if checked.verdict != "pass":
        return 1 if checked.verdict == "fail" else 3
    activated = edgepack.activate(device, app=project.name, hooks=project.hooks)
    print(f"activated  {activated.current}, hooks {', '.join(hook['hook'] for hook in activated.hooks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
