from __future__ import annotations

from pathlib import Path

import pytest
from agent_client import AgentClient, AgentFailure
from ondevice_release import lay_out, model_release, run_program


@pytest.mark.parametrize(
    ("model", "take", "counted"),
    [("tiny_int8", 0, 0), ("tiny_int8", 1, 1), ("tiny_int8", 2, 2), ("tiny_int8", 99, 4), ("tiny_dense", 0, 0)],
)
def test_the_operators_that_a_delegate_took_are_counted(
    model: str, take: int, counted: int, toy_delegate: Path, tmp_path: Path
) -> None:
    """The loader tells how much of the model really runs on the accelerator; what XNNPACK takes does not count."""
    release = model_release(model)
    options = {"take": str(take)}
    release.extra["target"] = {"delegate": {"library": str(toy_delegate), "required": True, "options": options}}
    lay_out(tmp_path, release)
    body = """
import edgepack_device
model = edgepack_device.load("tiny")
names = [node["op_name"] for node in model._interpreter._get_ops_details()]
result = [model.info()["delegate"]["operators"], names.count("DELEGATE")]
"""
    operators, kernels = run_program(tmp_path, body)
    assert operators == counted
    if model == "tiny_dense":
        assert kernels == 1


def test_a_delegate_that_refuses_says_why(toy_delegate: Path, tmp_path: Path) -> None:
    """An accelerator that is not plugged in ends the check with the library's own words."""
    release = model_release()
    options = {"refuse": "1"}
    release.extra["target"] = {"delegate": {"library": str(toy_delegate), "required": True, "options": options}}
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        with pytest.raises(AgentFailure, match="no accelerator is plugged in") as refused:
            agent.request("measure", app=None, release=None, options={"max_seconds": 2})
    assert refused.value.code == "delegate-missing"
