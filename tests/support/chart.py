"""The Helm chart as Helm renders it.

Helm's engine (its Go library, from a wheel) runs in a separate process, because it has a runtime.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "mms-postbacks"

LINT = "import helm_python, json, sys; print(json.dumps(helm_python.lint(sys.argv[1])))"
RENDER = """
import helm_python, json, sys
with helm_python.Chart.load(sys.argv[1]) as chart:
    print(json.dumps(chart.render(json.loads(sys.argv[2]), name="demo", namespace="prod")))
"""


def lint() -> Any:
    """The problems that Helm finds in the chart."""
    return _helm(LINT)


def rendered(values: Mapping[str, Any]) -> dict[str, str]:
    """The manifests that Helm renders, by template."""
    manifests: dict[str, str] = _helm(RENDER, json.dumps(values))
    return {Path(name).stem: text for name, text in manifests.items()}


def _helm(script: str, *arguments: str) -> Any:
    done = subprocess.run(
        (sys.executable, "-c", script, str(CHART), *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
