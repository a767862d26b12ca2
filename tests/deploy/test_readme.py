"""deploy/README.md names only what is there."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "deploy" / "README.md").read_text()


def test_files_that_it_names_exist() -> None:
    named = set(re.findall(r"\b(?:deploy|tests|shared)/[\w./*-]+\w", README))
    assert len(named) > 8
    for name in named - {"deploy/.env"}:  # which its reader makes
        assert list(ROOT.glob(name)), name


def test_its_shell_is_shell(tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)):
        path = tmp_path / f"{number}.sh"
        path.write_text(block.replace("<this repository>", "repository"))
        done = subprocess.run(
            ("bash", "-n", str(path)), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
