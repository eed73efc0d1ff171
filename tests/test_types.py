"""Every public function says what it takes and gives."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(path for folder in ('sgmg_jax', 'datasets', 'configs') for path in (ROOT / folder).rglob('*.py'))


def public_functions(body, prefix=''):
    """(name, node) of the functions of a module, and of the methods of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield from public_functions(node.body, f'{node.name}.')
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith('_') or node.name == '__call__'):
            yield prefix + node.name, node


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_are_annotated(path):
    missing = []
    for name, node in public_functions(ast.parse(path.read_text()).body):
        arguments = [
            *node.args.posonlyargs,
            *node.args.args,
            *node.args.kwonlyargs,
            *filter(None, (node.args.vararg, node.args.kwarg)),
        ]
        missing += [
            f'{name}({argument.arg})'
            for argument in arguments
            if argument.annotation is None and argument.arg not in ('self', 'cls')
        ]
        missing += [f'{name} -> ?'] * (node.returns is None)
    assert not missing
