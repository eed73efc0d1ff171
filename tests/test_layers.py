"""Layers: parts of the package import only the parts listed here, without cycles; files and functions stay small."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MOST_PARAMETERS = 6
BASE = {'types', 'ops', 'sharding'}
RUNNING = BASE | {'hosts', 'compilation', 'config', 'convert', 'files', 'processes', 'data', 'systems', 'checkpoints'}
ALLOWED = {
    '__main__': {'commands'},
    'configs': set(),
    'datasets': set(),
    'types': set(),
    'ops': {'types', 'compilation'},
    'sharding': set(),
    'compilation': set(),
    'models': BASE | {'compilation'},
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
    'checkpoints': {'checksums', 'files', 'hosts'},
    'checksums': set(),
    'convert': {'commands', 'config', 'files', 'data', 'models', 'systems', 'checkpoints'},
    'parity': BASE | {'commands', 'compilation', 'config', 'files', 'models', 'losses', 'systems', 'convert'},
    'synthetic': {'commands', 'files', 'pictures', 'video'},
    'systems': BASE | {'models', 'losses'},
    'raw': {'arrays', 'files', 'pictures', 'video', 'plain_pickle', 'data', 'evaluation'},
    'doctor': {'files', 'pictures', 'commands', 'raw', 'data'},
    'plain_pickle': {'files'},
    'processes': set(),
    'score': {'files', 'pictures', 'commands', 'processes', 'data', 'evaluation'},
    'inference': RUNNING | {'commands', 'pictures', 'video', 'models', 'evaluation', 'visualize', 'score'},
    'predict': RUNNING | {'commands', 'video', 'inference'},
    'export': {'commands', 'compilation', 'files', 'types', 'convert', 'data', 'models', 'inference'},
    'app': {'commands', 'compilation', 'inference', 'synthetic', 'video', 'visualize'},
    'training': RUNNING | {'commands', 'inference'},
    'benchmarks': RUNNING | {'commands', 'pictures', 'models', 'losses', 'training', 'inference', 'evaluation'},
    'studies': RUNNING
    | {'commands', 'datasets', 'synthetic', 'models', 'training', 'inference', 'benchmarks', 'score', 'visualize'},
}


def imports(path):
    """Full names of the imports of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


FILES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted((ROOT / 'sgmg_jax').rglob('*.py'))
}


def part_of(module):
    return (module.split('.') + [''])[1]


def module_of(name):
    """The module in FILES that `import name`, or `from .. import name`, loads."""
    while name not in FILES:
        name = name.rpartition('.')[0]
    return name


@pytest.mark.parametrize('module', FILES)
def test_imports(module):
    part = part_of(module)
    for name in imports(FILES[module]):
        top = name.split('.')[0]
        assert top not in ('datasets', 'tests', 'configs', 'tensorflow', 'torch'), f'imports {name}'
        if part == 'evaluation':
            assert top not in ('jax', 'flax', 'optax'), f'imports {name}'
        if part == 'ops':
            assert top not in ('flax', 'optax'), f'imports {name}'
        if name.startswith('sgmg_jax.') and part:
            assert part_of(name) in ALLOWED[part] | {part}, f'{part} must not import {name}'


def test_all_parts_are_listed_without_cycles():
    assert {part_of(module) for module in FILES} - {''} == set(ALLOWED)
    graphlib.TopologicalSorter(ALLOWED).prepare()


def test_modules_have_no_import_cycles():
    """Including late imports; a package's __init__ may import its own modules."""
    graphlib.TopologicalSorter(
        {
            module: {module_of(name) for name in imports(path) if name.startswith('sgmg_jax.')} - {module}
            for module, path in FILES.items()
        }
    ).prepare()


@pytest.mark.parametrize(
    'path',
    sorted({*(ROOT / 'sgmg_jax').rglob('*.py'), *(ROOT / 'datasets').rglob('*.py'), *(ROOT / 'configs').rglob('*.py')}),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_files_have_at_most_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    'path',
    sorted({*(ROOT / 'sgmg_jax').rglob('*.py'), *(ROOT / 'datasets').rglob('*.py')}),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_functions_have_at_most_six_positional_parameters(path):
    """Further ones are keyword-only or grouped: a call with eight values in a row is unreadable."""
    long = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            if len(names) - (names[:1] in (['self'], ['cls'])) > MOST_PARAMETERS:
                long.append(f'line {node.lineno}: {getattr(node, "name", "lambda")}({", ".join(names)})')
    assert not long
