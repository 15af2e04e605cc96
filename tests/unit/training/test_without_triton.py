"""Training without triton, which the image of the workers leaves out."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from detectors.forecasters.shared_lstm import network
from detectors.training.finetune import finetune
from detectors.training.sequences import FinetuneSettings, stacked
from detectors.training.synthetic_series import batch

values = batch(seed=7, n=4, length=600)
done = finetune(network(None), stacked(list(values)), FinetuneSettings(epochs=1))
print(done.status, "torch" in sys.modules, "triton" in sys.modules)
"""


def test_a_network_is_trained_without_triton():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["finished", "True", "False"], done.stderr[-2000:]
