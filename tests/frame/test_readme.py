"""The README's program runs as it stands, and its links lead to files."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_program_trains_a_vae_that_beats_independent_pixels(tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=300)
    assert answer.returncode == 0, answer.stderr
    from lecturecode.data import digits

    frequency = (digits("training").binary.sum(0) + 0.5) / (len(digits("training")) + 1)
    x = digits("test").binary
    independent = (x * frequency.log() + (1 - x) * (1 - frequency).log()).sum(1).mean()
    (elbo,) = re.findall(r"^test ELBO: (-[\d.]+) nats$", answer.stdout, flags=re.MULTILINE)
    assert float(elbo) > independent + 3


def test_every_link_of_the_documents_leads_to_a_file():
    for name in ("README.md", "CONTRIBUTING.md"):
        targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        assert [target for target in targets if not (ROOT / target).exists()] == []
