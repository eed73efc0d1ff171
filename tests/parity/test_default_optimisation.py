"""A whole model compiled with XLA's default optimisation; all other tests turn it off (conftest.py)."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_a_whole_model_equals_the_release():
    command = [sys.executable, '-m', 'sgmg_jax.parity', 'tests/goldens/full_tiny_eval_ytvos_b2.npz']
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert '1 cases, 6 arrays, 0 failed' in result.stdout
