"""Whole models compiled with XLA's default optimisation; all other tests turn it off (conftest.py)."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize('case, count', [('full_tiny_eval_ytvos_b2', 6), ('soc/full_tiny_eval_b2_mixing', 12)])
def test_whole_models_equal_the_release(case, count):
    command = [sys.executable, '-m', 'sgmg_jax.parity', f'tests/goldens/{case}.npz']
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert f'1 cases, {count} arrays, 0 failed' in result.stdout
