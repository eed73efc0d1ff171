"""Mutation testing: changes the code in one random place at a time, and checks whether a test fails.

    python tests/tools/mutate.py --count=200 --json=mutants.json
    python tests/tools/mutate.py sgmg_jax/data/clips.py datasets --count=40 --seed=1

Prints each mutant that no test of its package kills: write the missing test, or show that the mutant is equivalent
(changes nothing). TESTS below assigns tests to packages. They must pass without a mutant first. Everything runs in
copies of the tree. With --json, the same command resumes an interrupted run; if tests have changed since, survivors are
tried again.
"""

import argparse
import ast
import collections
from collections.abc import Iterator
import concurrent.futures
import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = 'sgmg_jax', 'datasets'

# Prefix of the path of a module (the longest one applies) -> its tests; {} is the name of the module. Its own tests,
# test_<module>*.py, run first, and SLOW ones last, only if the others pass.
MODELS = 'tests/ops', 'tests/models', 'tests/losses', 'tests/parity/test_parity.py'
TESTS = {
    'datasets': ('tests/datasets',),
    'datasets/build.py': ('tests/datasets/test_build.py', 'tests/datasets'),
    'sgmg_jax': ('tests/test_{}*.py', 'tests/test_configs.py'),
    'sgmg_jax/__main__.py': ('tests/test_package.py',),
    'sgmg_jax/benchmarks': ('tests/benchmarks',),
    'sgmg_jax/checkpoints.py': ('tests/test_checkpoints.py', 'tests/training', 'tests/test_end_to_end.py'),
    'sgmg_jax/convert': ('tests/convert',),
    'sgmg_jax/data': ('tests/data',),
    'sgmg_jax/doctor': ('tests/test_doctor.py', 'tests/test_doctor_mevis.py', 'tests/test_doctor_and_builder.py'),
    'sgmg_jax/evaluation': ('tests/evaluation', 'tests/score'),
    'sgmg_jax/hosts.py': ('tests/test_hosts.py', 'tests/training/test_many_devices.py'),
    'sgmg_jax/inference': ('tests/inference', 'tests/test_end_to_end.py'),
    'sgmg_jax/inference/evaluate.py': (
        'tests/inference',
        'tests/test_documented_commands.py',
        'tests/test_end_to_end.py',
    ),
    'sgmg_jax/losses': ('tests/losses', 'tests/parity/test_parity.py'),
    'sgmg_jax/models': MODELS,
    'sgmg_jax/ops': MODELS,
    'sgmg_jax/parity': ('tests/parity', 'tests/convert'),
    'sgmg_jax/plain_pickle.py': ('tests/convert/test_pth.py', 'tests/test_doctor.py'),
    'sgmg_jax/processes.py': ('tests/test_processes.py', 'tests/score'),
    'sgmg_jax/raw': ('tests/datasets', 'tests/test_doctor.py', 'tests/test_doctor_and_builder.py'),
    'sgmg_jax/score': ('tests/score', 'tests/evaluation'),
    'sgmg_jax/sharding.py': ('tests/training',),
    'sgmg_jax/synthetic': ('tests/test_synthetic.py',),
    'sgmg_jax/training': ('tests/training', 'tests/test_end_to_end.py'),
    'sgmg_jax/types.py': ('tests/data/test_clips.py', 'tests/models'),
}
QUICK = {  # module -> words in the names of the few tests that kill most of its mutants
    'sgmg_jax/losses/': 'criterion or loss',
    'sgmg_jax/models/deformable_transformer.py': 'msda or transformer',
    'sgmg_jax/models/layers.py': 'layers or fpn or lfm',
    'sgmg_jax/models/mask_features.py': 'fpn',
    'sgmg_jax/models/mask_optimizer.py': 'mso',
    'sgmg_jax/models/multi_instance.py': 'multi_instance',
    'sgmg_jax/models/multimodal_fusion.py': 'mmf',
    'sgmg_jax/models/object_cluster.py': 'voc',
    'sgmg_jax/models/patch_kernels.py': 'cpk',
    'sgmg_jax/models/roberta.py': 'roberta',
    'sgmg_jax/models/spectral_fusion.py': 'fusion or lfm',
    'sgmg_jax/models/video_swin.py': 'swin',
    'sgmg_jax/ops/deformable_attention.py': 'msda or sampling',
    'sgmg_jax/ops/dynamic_conv.py': 'cpk or maskhead',
    'sgmg_jax/ops/positions.py': 'posenc or positions',
    'sgmg_jax/ops/resize.py': 'resize',
    'sgmg_jax/ops/spectrum.py': 'lfm',
}
SLOW = (
    'tests/training/test_loop.py',
    'tests/training/test_many_devices.py',
    'tests/test_documented_commands.py',
    'tests/test_end_to_end.py',
)
PYTEST = sys.executable, '-m', 'pytest', '-x', '-q', '--tb=short'
MEMORY = 16 * 2**30  # bytes of address space for the tests of a mutant

OPERATORS = {  # how each is written, and its replacements
    ast.Lt: ('<', '<=', '>'),
    ast.LtE: ('<=', '<', '>='),
    ast.Gt: ('>', '>=', '<'),
    ast.GtE: ('>=', '>', '<='),
    ast.Eq: ('==', '!='),
    ast.NotEq: ('!=', '=='),
    ast.Is: ('is', 'is not'),
    ast.IsNot: ('is not', 'is'),
    ast.In: ('in', 'not in'),
    ast.NotIn: ('not in', 'in'),
    ast.And: ('and', 'or'),
    ast.Or: ('or', 'and'),
    ast.Add: ('+', '-'),
    ast.Sub: ('-', '+'),
    ast.Mult: ('*', '/'),
    ast.Div: ('/', '*'),
    ast.FloorDiv: ('//', '*'),
    ast.Mod: ('%', '*'),
    ast.Pow: ('**', '*'),
    ast.BitAnd: ('&', '|'),
    ast.BitOr: ('|', '&'),
    ast.BitXor: ('^', '|'),
    ast.LShift: ('<<', '>>'),
    ast.RShift: ('>>', '<<'),
}
PROSE = {'help', 'description', 'epilog', 'metavar', 'prog', 'desc', 'unit'}  # keywords of texts for people


@dataclasses.dataclass(frozen=True)
class Mutant:
    """Replaces bytes `start` to `end` of a file."""

    path: str
    line: int
    start: int
    end: int
    replacement: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.replacement.encode() + source[self.end :]

    def diff(self, source: bytes) -> list[str]:
        """The changed lines, with - and +."""
        lines = difflib.unified_diff(*(x.decode().splitlines() for x in (source, self.apply(source))), n=0, lineterm='')
        return [line for line in lines if line[0] in '+-' and not line.startswith(('+++', '---'))]


def places(path: str, source: bytes) -> list[list[Mutant]]:
    """All mutants of a file, grouped by place."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def span(node):
        return (starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset)

    found = []
    for start, end, replacements in _changes(ast.parse(source), source, span):
        line = source.count(b'\n', 0, start) + 1
        found.append([Mutant(path, line, start, end, x) for x in replacements if x.encode() != source[start:end]])
    return sorted(filter(None, found), key=lambda ways: (ways[0].start, ways[0].end))


def _changes(node: ast.AST, source: bytes, span) -> Iterator[tuple[int, int, list[str]]]:
    """(start, end, replacements) of a node and its descendants."""

    def text(node):
        return source[slice(*span(node))].decode()

    def operator(kind, left, right):
        """The operator between two operands; nothing else is there but brackets and spaces."""
        sign, *others = OPERATORS[type(kind)]
        place = source.index(sign.encode(), span(left)[1], span(right)[0])
        return place, place + len(sign), others

    children = [
        child
        for name, value in ast.iter_fields(node)
        if name not in ('annotation', 'returns')
        for child in (value if isinstance(value, list) else [value])
        if isinstance(child, ast.AST)
    ]
    whole = span(node) if hasattr(node, 'lineno') else None
    match node:
        case ast.Raise():
            yield *whole, ['pass']
            return  # The message is for people.
        case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Compare(left=ast.Name('__name__'))):
            return
        case ast.Expr(ast.Constant()) | ast.Subscript(ast.Name('Literal')):  # docstrings, types
            return
        case ast.Expr(ast.Call(func)) if text(func).startswith(('logging.', 'print', 'warnings.')):
            return
        case ast.Expr(ast.Call()) | ast.Assign([ast.Attribute() | ast.Subscript()]) | ast.Continue():
            yield *whole, ['pass']
        case ast.Return(ast.AST()):
            yield *whole, ['return None']
        case ast.AugAssign(left, op, right) | ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield operator(op, left, right)
        case ast.BoolOp(op, [left, right]):
            yield operator(op, left, right)
        case ast.Compare(left, ops, others):
            for op, one, other in zip(ops, [left, *others], others):
                yield operator(op, one, other)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield *whole, [f'({text(operand)})']
        case ast.Constant(value):
            if others := _others(value):
                yield *whole, others
        case ast.JoinedStr():  # Before Python 3.12, its parts have no positions.
            if not re.search(r'\s', text(node)):
                yield *whole, ["''"]
            return
        case ast.Call(_, args, keywords):
            if len(args) > 1 and not any(isinstance(x, ast.Starred) for x in args[:2]):
                one, other = args[:2]
                yield span(one)[0], span(other)[1], [f'{text(other)}, {text(one)}']
            for keyword in keywords:
                if keyword.arg not in PROSE | {None}:
                    fewer = ast.Call(node.func, args, [x for x in keywords if x is not keyword])
                    yield *whole, [ast.unparse(fewer)]
            children = [child for child in children if getattr(child, 'arg', None) not in PROSE]
    for test in [node.test] if isinstance(node, ast.If | ast.IfExp | ast.While) else getattr(node, 'ifs', []):
        yield *span(test), [f'(not ({text(test)}))']
    for child in children:
        yield from _changes(child, source, span)


def _others(value) -> list[str]:
    """Replacements of a constant; none for None, sentences and empty strings."""
    match value:
        case bool():
            return [str(not value)]
        case int() | float():
            return [repr(value + 1), f'({value - 1!r})']
        case str() | bytes() if value and not re.search(rb'\s' if isinstance(value, bytes) else r'\s', value):
            return [repr(value[:0])]
    return []


def sample(sources: dict[str, bytes], count: int, seed: int) -> list[Mutant]:
    """Up to `count` mutants of files (path -> content), from places drawn uniformly without replacement."""
    every = [ways for path in sorted(sources) for ways in places(path, sources[path])]
    rng = random.Random(seed)
    return [rng.choice(ways) for ways in rng.sample(every, min(count, len(every)))]


def stages(path: str, root: pathlib.Path = ROOT) -> list[list[str]]:
    """The tests of a module, in stages of arguments for pytest: quick ones; its own and its package's; slow ones."""
    name = pathlib.PurePath(path).parent.name if path.endswith('__init__.py') else pathlib.PurePath(path).stem
    prefix = max((prefix for prefix in TESTS if path.startswith(prefix)), key=len)
    found = [test for pattern in TESTS[prefix] for test in sorted(root.glob(pattern.format(name)))]
    tests = [test for place in found for test in (sorted(place.rglob('test_*.py')) if place.is_dir() else [place])]
    names = dict.fromkeys(str(test.relative_to(root)) for test in tests)
    names = sorted(names, key=lambda test: name not in pathlib.PurePath(test).stem)
    quick = [['-k', words, *names] for prefix, words in QUICK.items() if path.startswith(prefix)]
    return quick + [x for x in ([x for x in names if x not in SLOW], [x for x in names if x in SLOW]) if x]


def run_tests(tree: pathlib.Path, tests: list[str], cache: pathlib.Path, limit: float | None = None) -> tuple[str, str]:
    """'passed', 'failed' or 'hung' (after `limit` seconds), and the output of pytest."""
    with subprocess.Popen(
        [*PYTEST, '-o', f'cache_dir={cache}', *tests],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return 'hung', process.communicate()[0]
    return 'failed' if process.returncode else 'passed', output


def judge(mutant: Mutant, tree: pathlib.Path, cache: pathlib.Path, limits: dict[frozenset, float]) -> str:
    """'killed', 'hung' or 'survived'."""
    file = tree / mutant.path
    original, status = file.read_bytes(), file.stat()
    try:
        file.write_bytes(mutant.apply(original))
        for tests in stages(mutant.path, tree):
            outcome, _ = run_tests(tree, tests, cache, limits[frozenset(tests)])
            if outcome != 'passed':
                return {'failed': 'killed', 'hung': 'hung'}[outcome]
        return 'survived'
    finally:
        file.write_bytes(original)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # makes Python's cached bytecode valid again


def check_unchanged(mutants: list[Mutant], tree: pathlib.Path, cache: pathlib.Path) -> dict[frozenset, float]:
    """Runs the tests of the mutants on unchanged code; returns tests -> time limit for a mutant in seconds."""
    limits = {}
    for mutant in mutants:
        for tests in stages(mutant.path, tree):
            if frozenset(tests) not in limits:
                print(f'without a mutant: {" ".join(tests)}', flush=True)
                begin = time.monotonic()
                outcome, output = run_tests(tree, tests, cache)
                if outcome != 'passed':
                    sys.exit(f'{output}\nerror: these tests fail without a mutant. Fix them first.')
                limits[frozenset(tests)] = 60 + 5 * (time.monotonic() - begin)
    return limits


def table(results: list[dict]) -> str:
    """A row of counts per package, then the survivors."""
    counts = collections.defaultdict(collections.Counter)
    for result in results:
        parts = result['path'].split('/')
        package = '/'.join(parts[:2]) if parts[0] == 'sgmg_jax' and len(parts) > 2 else parts[0]
        for name in (package, 'all'):
            counts[name][result['outcome']] += 1
    rows = [f'{"":24}{"mutants":>9}{"killed":>9}{"hung":>9}{"survived":>9}{"noticed":>9}']
    for name in sorted(counts, key=lambda name: (name == 'all', name)):
        killed, hung, survived = (counts[name][outcome] for outcome in ('killed', 'hung', 'survived'))
        rows.append(
            f'{name:24}{killed + hung + survived:9}{killed:9}{hung:9}{survived:9}'
            f'{(killed + hung) / (killed + hung + survived):9.0%}'
        )
    for result in results:
        if result['outcome'] == 'survived':
            rows += ['', f'{result["path"]}:{result["line"]}', *result['diff']]
    return '\n'.join(rows)


def digest(folder: pathlib.Path, names: tuple[str, ...]) -> str:
    """A hash of the Python files in these folders."""
    whole = hashlib.sha256()
    for file in sorted(file for name in names for file in (folder / name).rglob('*.py')):
        whole.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python tests/tools/mutate.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'paths', nargs='*', default=list(PACKAGES), help='what to mutate, such as sgmg_jax/data (default: everything)'
    )
    parser.add_argument('--count', type=int, default=200, help='number of mutants (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='selects the mutants (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='mutants tested in parallel (default: %(default)s)')
    parser.add_argument('--json', type=pathlib.Path, help='file for the results, from which a run resumes')
    parser.add_argument('--list', action='store_true', help='print the mutants and their tests without running them')
    options = parser.parse_args()

    files = [
        file
        for path in options.paths
        for file in sorted([ROOT / path, *(ROOT / path).rglob('*.py')])
        if file.suffix == '.py' and file.exists()
    ]
    sources = {str(file.relative_to(ROOT)): file.read_bytes() for file in files}
    mutants = sample(sources, options.count, options.seed)
    if not mutants:
        parser.error(f'{" ".join(options.paths)}: nothing to mutate')
    if options.list:
        for mutant in mutants:
            print(f'{mutant.path}:{mutant.line}', *mutant.diff(sources[mutant.path]), stages(mutant.path), '', sep='\n')
        return

    identity = {'code': digest(ROOT, PACKAGES), 'paths': options.paths, 'count': options.count, 'seed': options.seed}
    tests, done = digest(ROOT, ('tests', 'configs')), {}
    if options.json and options.json.exists():
        known = json.loads(options.json.read_text())
        if known['identity'] != identity:
            parser.error(f'{options.json}: holds results for other code or arguments. Remove it, or name another file.')
        done = {
            result['number']: result
            for result in known['results']
            if result['outcome'] != 'survived' or result['tests'] == tests
        }

    def save():
        if options.json:
            partial = options.json.with_suffix('.partial')
            partial.write_text(json.dumps({'identity': identity, 'results': [done[i] for i in sorted(done)]}, indent=1))
            partial.replace(options.json)

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with (
        tempfile.TemporaryDirectory(prefix='mutants-') as folder,
        concurrent.futures.ThreadPoolExecutor(options.jobs) as pool,
    ):
        cache, trees = pathlib.Path(folder, 'cache'), queue.SimpleQueue()
        for i in range(options.jobs):
            tree = pathlib.Path(folder, f'tree{i}')
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns('.*', 'runs', 'shared', '__pycache__'))
            trees.put(tree)
        todo = [i for i in range(len(mutants)) if i not in done]
        limits = check_unchanged([mutants[i] for i in todo], tree, cache)

        def attempt(i):
            tree = trees.get()
            try:
                return i, judge(mutants[i], tree, cache, limits)
            finally:
                trees.put(tree)

        for i, outcome in pool.map(attempt, todo):
            mutant = mutants[i]
            diff = mutant.diff(sources[mutant.path])
            done[i] = {
                'number': i,
                'path': mutant.path,
                'line': mutant.line,
                'diff': diff,
                'outcome': outcome,
                'tests': tests,
            }
            print(f'{len(done)} of {len(mutants)}: {outcome}, {mutant.path}:{mutant.line}', *diff, sep='\n', flush=True)
            save()
    print(f'\n{table([done[i] for i in sorted(done)])}')


if __name__ == '__main__':
    main()
