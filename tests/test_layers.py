"""No room knows those above it: every import between the parts is one of these."""
import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BASE = {'types', 'ops', 'sharding'}
RUNNING = BASE | {'hosts', 'compilation', 'config', 'convert', 'files', 'processes', 'data', 'systems', 'checkpoints'}
ALLOWED = {
    'types': set(),
    'ops': {'types'},
    'sharding': set(),
    'compilation': set(),
    'models': BASE,
    'losses': BASE,
    'data': {'types', 'files', 'pictures', 'video', 'processes', 'commands'},
    'evaluation': {'files'},
    'files': set(),
    'config': {'files'},
    'arrays': {'files'},
    'pictures': {'files'},
    'video': {'files', 'pictures'},
    'commands': {'files', 'config'},
    'visualize': {'files'},
    'hosts': {'files'},
    'checkpoints': {'files', 'hosts'},
    'convert': BASE | {'commands', 'compilation', 'config', 'files', 'models', 'losses', 'systems', 'checkpoints'},
    'systems': BASE | {'models', 'losses'},
    'raw': {'arrays', 'files', 'pictures', 'video', 'plain_pickle', 'data.records', 'evaluation.segmentations'},
    'doctor': {'files', 'pictures', 'commands', 'raw', 'data.records'},
    'plain_pickle': {'files'},
    'processes': set(),
    'score': {'files', 'pictures', 'commands', 'processes', 'data', 'evaluation', 'inference.leaderboard'},
    'inference': RUNNING | {'pictures', 'models', 'evaluation', 'visualize', 'score'},
    'training': RUNNING | {'inference'},
    'benchmarks': RUNNING | {'commands', 'models', 'losses', 'training', 'inference', 'evaluation'},
}


def imports(path):
    """Full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


FILES = sorted((ROOT / 'sgmg_jax').rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports(path):
    part = path.relative_to(ROOT / 'sgmg_jax').with_suffix('').parts[0]
    for name in imports(path):
        top, *rest = name.split('.')
        assert top not in ('datasets', 'tests', 'configs', 'tensorflow', 'torch'), f'imports {name}'
        if part == 'evaluation':
            assert top not in ('jax', 'flax', 'optax'), f'imports {name}'
        if top != 'sgmg_jax' or part == '__init__':
            continue
        allowed = ALLOWED[part] | {part}
        assert any('.'.join(rest).startswith(a) for a in allowed), f'{part} must not import {name}'


def test_every_part_is_known():
    parts = {p.relative_to(ROOT / 'sgmg_jax').with_suffix('').parts[0] for p in FILES} - {'__init__'}
    assert parts == set(ALLOWED)
