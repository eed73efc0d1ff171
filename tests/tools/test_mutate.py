"""tests/tools/mutate.py: the mutants of a small piece of code, and the verdicts on mutants of a small tree."""

import ast
import pathlib
import sys
import textwrap

import mutate
import pytest

CODE = textwrap.dedent('''
    """Text 1 + 1."""
    import math


    def area(sides: int = 2, *, name: 'str' = 'a b') -> 'int':
        """Text 1 + 1."""
        if sides < 0 or not name:
            raise ValueError(f'sides={sides - 1}')
        logging.info('text', 1 + 1)
        x.size = math.hypot(sides, 4.5, key='ö')
        x.size += -1
        show(x)
        for y in x:
            continue
        return [y for y in x if y is not None]
''')


def mutants(code):
    """The changed line of each mutant, stripped."""
    source = code.encode()
    for ways in mutate.places('x.py', source):
        for mutant in ways:
            ast.parse(mutant.apply(source))
            before, after = ([line[1:].strip() for line in mutant.diff(source) if line[0] == sign] for sign in '-+')
            assert len(before) == 1 and source.splitlines()[mutant.line - 1].decode().strip() == before[0]
            yield after[0] if after else ''


def test_all_mutants_of_a_file():
    assert sorted(mutants(CODE)) == sorted(
        [
            "def area(sides: int = 3, *, name: 'str' = 'a b') -> 'int':",
            "def area(sides: int = (1), *, name: 'str' = 'a b') -> 'int':",
            'if sides <= 0 or not name:',
            'if sides > 0 or not name:',
            'if sides < 1 or not name:',
            'if sides < (-1) or not name:',
            'if sides < 0 and not name:',
            'if sides < 0 or (name):',
            'if (not (sides < 0 or not name)):',
            'pass',
            'pass',
            'pass',
            'pass',
            "x.size = math.hypot(4.5, sides, key='ö')",
            'x.size = math.hypot(sides, 4.5)',
            "x.size = math.hypot(sides, 5.5, key='ö')",
            "x.size = math.hypot(sides, (3.5), key='ö')",
            "x.size = math.hypot(sides, 4.5, key='')",
            'x.size -= -1',
            'x.size += (1)',
            'x.size += -2',
            'x.size += -(0)',
            'return None',
            'return [y for y in x if y is None]',
            'return [y for y in x if (not (y is not None))]',
        ]
    )


@pytest.mark.parametrize(
    'sign',
    [
        '<',
        '<=',
        '>',
        '>=',
        '==',
        '!=',
        'is',
        'is not',
        'in',
        'not in',
        'and',
        'or',
        '+',
        '-',
        '*',
        '/',
        '//',
        '%',
        '**',
        '&',
        '|',
        '^',
        '<<',
        '>>',
    ],
)
def test_every_operator_is_replaced(sign):
    changed = list(mutants(f'y = (a) {sign} (b)'))
    assert changed and f'y = (a) {sign} (b)' not in changed


def test_sample_is_determined_by_its_seed():
    sources = {'b.py': CODE.encode(), 'a.py': b'x = 1\ny = 2\n'}
    first = mutate.sample(sources, 6, seed=3)
    assert first == mutate.sample(dict(reversed(sources.items())), 6, seed=3) != mutate.sample(sources, 6, seed=4)
    assert len({(mutant.path, mutant.start, mutant.end) for mutant in first}) == 6
    assert len(mutate.sample(sources, 10**6, seed=0)) == sum(len(mutate.places(*x)) for x in sources.items())


ROOT = pathlib.Path(__file__).parents[2]


def test_every_path_of_the_table_exists():
    paths = [*mutate.TESTS, *mutate.QUICK, *mutate.SLOW, *(path for paths in mutate.TESTS.values() for path in paths)]
    assert [path for path in paths if '{}' not in path and not (ROOT / path).exists()] == []


def test_every_module_has_tests():
    for package in mutate.PACKAGES:
        for file in (ROOT / package).rglob('*.py'):
            tests = mutate.stages(str(file.relative_to(ROOT)))
            assert tests and all((ROOT / test).is_file() for test in tests[-1]), file
    assert mutate.stages('sgmg_jax/data/text.py')[0][0] == 'tests/data/test_text.py'
    assert mutate.stages('sgmg_jax/models/roberta.py')[0][:2] == ['-k', 'roberta']
    assert mutate.stages('sgmg_jax/training/loop.py')[-1][0] == 'tests/training/test_loop.py'  # minutes


def test_a_mutant_is_killed_hangs_or_survives(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, 'TESTS', {'': ('test_{}.py',)})
    # Instead of pytest, which takes seconds to start.
    monkeypatch.setattr(mutate, 'PYTEST', (sys.executable, '-c', 'import x; assert x.n == 1'))
    tree, cache, source = tmp_path / 'tree', tmp_path / 'cache', b'n = 1\nwhile n > 1: pass\nm = 5\n'
    tree.mkdir()
    (tree / 'x.py').write_bytes(source)
    (tree / 'test_x.py').touch()
    mutants = {ways[0].replacement: ways[0] for ways in mutate.places('x.py', source)}
    limits = mutate.check_unchanged(list(mutants.values()), tree, cache)
    assert mutate.judge(mutants['(not (n > 1))'], tree, cache, dict.fromkeys(limits, 0.5)) == 'hung'
    assert mutate.judge(mutate.Mutant('x.py', 1, 4, 5, '0'), tree, cache, limits) == 'killed'
    assert mutate.judge(mutants['6'], tree, cache, limits) == 'survived'
    assert (tree / 'x.py').read_bytes() == source
    with pytest.raises(SystemExit, match='fail without a mutant'):
        (tree / 'x.py').write_text('n = 2')
        mutate.check_unchanged(list(mutants.values()), tree, cache)
    rows = mutate.table(
        [
            {'path': 'x.py', 'line': 1, 'diff': ['-a', '+b'], 'outcome': outcome}
            for outcome in ('killed', 'survived', 'hung')
        ]
    )
    assert '67%' in rows and rows.endswith('x.py:1\n-a\n+b')
