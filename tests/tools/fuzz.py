"""Fuzzing: runs the commands on damaged and hostile files, and reports every input that is not handled well.

    python tests/tools/fuzz.py --count=2000 --json=fuzz.json
    python tests/tools/fuzz.py build doctor --seed=1
    python tests/tools/fuzz.py --only=17

Each input is a small valid one (fuzz_inputs.py) with one change (fuzz_changes.py): in the bytes of a file, in a value
of its JSON, CSV, pickle or zip, or to the file itself (removed, a folder, a pipe, a link). A command may accept it, or
refuse it with one message that names it. Everything else is bad: another exception, a signal, a hang, more memory than
MEMORY, unprintable output, a write outside of the output folder, a half-written file in it.

The seed, the kinds and its number determine an input. --only runs one input again, shows the change and the output of
the command, and keeps its folder. Orbax gives its files random names, so which of them is changed varies between runs.
Each input runs in its own process, forked from one that has imported everything. Linux only.
"""

import argparse
from collections.abc import Callable
import importlib
import json
import os
import pathlib
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / 'tests' / name) for name in ('', 'convert', 'tools'))]

from fuzz_changes import change  # noqa: E402
from fuzz_inputs import TARGETS, WHOLE, write_inputs  # noqa: E402

MEMORY = 2 * 2**30  # bytes that a command may use in addition to its imports
SECONDS = 60  # of CPU time that it may use; it may sleep for half as long
CRASHED = 99  # exit status of a child that raised an exception
HALF_WRITTEN = re.compile(r'\.partial|incomplete\.|.*\.orbax-checkpoint-tmp')
IMPORTED = (
    'sgmg_jax.convert.__main__',
    'sgmg_jax.convert.weights',
    'sgmg_jax.systems',
    'sgmg_jax.parity.__main__',
    'sgmg_jax.parity.compare',
    'sgmg_jax.score.__main__',
    'sgmg_jax.score.davis',
    'sgmg_jax.score.ytvos',
    'sgmg_jax.score.coco',
    'sgmg_jax.doctor.__main__',
    'sgmg_jax.doctor.frame_sets',
    'sgmg_jax.doctor.davis',
    'sgmg_jax.data.text',
    'datasets.build',
    'configs.synthetic',
    'av',
    'h5py',
    'scipy.io',
)


class Ending(NamedTuple):
    """How a child ended. status: exit status, or minus the signal. cpu: seconds. memory: bytes that it grew by."""

    status: int
    hung: bool
    cpu: float
    memory: int
    output: str


def run_forked(work: Callable[[], int], folder: pathlib.Path, seconds: float = SECONDS) -> Ending:
    """Runs `work` in a child, with `folder` as its home, temporary and working directory."""
    sys.stdout.flush()
    sys.stderr.flush()
    folder.mkdir(parents=True, exist_ok=True)
    output, (source, sink) = folder.with_name('output'), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            os.write(sink, str(_memory('VmRSS')).encode())
            _limit(seconds)
            _redirect(output)
            os.chdir(folder)
            os.environ.update(HOME=str(folder), TMPDIR=str(folder))
            tempfile.tempdir = None
            status = work() or 0
        except SystemExit as error:  # of argparse
            status = error.code or 0
        except BaseException:
            traceback.print_exc()
            status = CRASHED
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else CRASHED)
    os.close(sink)
    code, hung, usage = _wait(pid, seconds)
    with open(source) as pipe:
        begin = int(pipe.read())
    text = output.read_text(errors='surrogateescape') if output.exists() else ''
    return Ending(
        os.waitstatus_to_exitcode(code),
        hung,
        usage.ru_utime + usage.ru_stime,
        max(0, usage.ru_maxrss * 1024 - begin),
        text,
    )


def _memory(field):
    return int(re.search(rf'{field}:\s*(\d+)', pathlib.Path('/proc/self/status').read_text())[1]) * 1024


def _limit(seconds):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    size = _memory('VmSize') + 4 * MEMORY  # protects the machine
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _redirect(output):
    """Redirects stdout and stderr, including those of C libraries."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (open(number, 'w', buffering=1, closefd=False) for number in (1, 2))


def _wait(pid, seconds):
    """Wait status, whether it hung (used too much CPU time, or slept too long in all threads), rusage."""
    awake, hung = time.monotonic(), False
    while True:
        found, code, usage = os.wait4(pid, os.WNOHANG)
        if found:
            hung = hung or os.waitstatus_to_exitcode(code) == -signal.SIGXCPU
            return code, hung, usage
        now = time.monotonic()
        if not _asleep(pid):
            awake = now
        elif now - awake > seconds / 2:
            hung = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.02)


def _asleep(pid):
    try:
        states = [
            task.joinpath('stat').read_text().rpartition(')')[2].split()[0]
            for task in pathlib.Path(f'/proc/{pid}/task').iterdir()
        ]
    except OSError:  # It has just ended.
        return False
    return all(state == 'S' for state in states)


def _tree(folder):
    """All paths in a folder with their state, to detect changes."""
    found = {}
    for path in folder.rglob('*'):
        status = path.lstat()
        found[path] = (status.st_mode, *(() if path.is_dir() else (status.st_size, status.st_mtime_ns)))
    return found


def judge(
    work: Callable[[], int], case: pathlib.Path, names: set[str], seconds: float = SECONDS
) -> tuple[list[str], Ending]:
    """What is bad about the ending of a command, and the ending.

    Args:
        case: a folder with the input in `in`; `work` may write to `out`.
        names: a message must contain one of these.
    """
    for name in ('in', 'out', 'home'):
        (case / name).mkdir(parents=True, exist_ok=True)
    known = {path: state for path, state in _tree(case).items() if case / 'out' not in (path, *path.parents)}
    ending, bad = run_forked(work, case / 'home', seconds), []
    if ending.hung:
        bad.append('hung')
    elif ending.status < 0:
        bad.append(f'killed by {signal.Signals(-ending.status).name}')
    elif ending.status == CRASHED:
        bad.append(f'crashed: {(ending.output.strip().splitlines() or ["?"])[-1]:.200}')
    elif (
        ending.status
        and not any(name in ending.output for name in names)
        and not re.search(r'field |line \d', ending.output)
    ):
        bad.append('names neither file nor field')
    if ending.memory > MEMORY:
        bad.append(f'took {ending.memory / 2**30:.1f} GiB')
    odd = {c for c in ending.output if not c.isprintable() and c not in '\n\r\t\u2028\xa0'}
    if odd and ending.status not in (CRASHED,):
        bad.append(f'prints {"".join(sorted(odd))!a:.60}')
    after = _tree(case)
    strange = [
        path
        for path, state in after.items()
        if known.get(path) != state and path != case / 'output' and case / 'out' not in (path, *path.parents)
    ] + [*(known.keys() - after)]
    if strange:
        bad.append(f'changed {strange[0].relative_to(case)}')
    left = [path.relative_to(case) for path in sorted((case / 'out').rglob('*')) if HALF_WRITTEN.match(path.name)]
    if left:
        bad.append(f'left {left[0]}')
    return bad, ending


def read_everything(folder: str) -> int:
    """Reads all records, or the files of a run that `evaluate` reads first: the command of kind 'records'."""
    from sgmg_jax import commands, config
    from sgmg_jax.data import records, text

    def work():
        if folder.endswith('/run'):
            config.read(folder)
            text.encode(text.load_tokenizer(folder + '/tokenizer.json'), ['the cat'], 20)
            return
        for split in records.describe(folder)[1]:
            for record in records.open_records(folder, split):
                record.decode_frames()
                if record.video.mask_layers is not None:
                    masks_of = record.decode_targets()
                    for expression in record.video.expressions:
                        masks_of(expression)
                elif record.video.mask_places is None:
                    record.decode_masks()
                for frame, number in record.video.mask_places or ():
                    record.decode_object(number, frame)

    return commands.run(work)


def attempt(number: int, seed: int, kinds: list[str], inputs: pathlib.Path, case: pathlib.Path) -> dict:
    """Creates input `number` in the folder `case`, runs its command, and returns the verdict."""
    kind, (name, module, words), rng = draw(number, seed, kinds)
    root = case / 'in' / name.replace(' ', '_')
    shutil.copytree(inputs / name, root)
    changes = [change(root, case / 'outside', rng)]
    words = re.sub(r'\{([^{}]*\|[^{}]*)\}', lambda found: rng.choice(found[1].split('|')), words)
    argv = [word.format(root, out=case / 'out') for word in words.split()]

    def work():
        if module == '__main__':
            return read_everything(*argv)
        from sgmg_jax import systems

        # Computing the shapes takes seconds.
        systems.parameter_shapes = lambda model: pickle.loads((inputs / 'shapes').read_bytes())
        return importlib.import_module(module).main(argv)

    names = set.union(*(each.names for each in changes))
    if name in WHOLE or kind == 'doctor':  # the doctor reports every small copy as incomplete
        names.add(root.name)
    bad, ending = judge(work, case, names)
    return (
        {
            'number': number,
            'kind': kind,
            'input': name,
            'argv': argv,
            'changes': [each.what for each in changes],
            'bad': bad,
        }
        | ending._asdict()
        | {'output': ending.output[-3000:]}
    )


def draw(number, seed, kinds):
    rng = random.Random(f'{seed} {number}')
    kind = kinds[number % len(kinds)]
    return kind, rng.choice(TARGETS[kind]), rng


def table(results: list[dict]) -> str:
    """Per kind: counts, the largest memory and the slowest input."""
    rows = [f'{"":9}{"inputs":>8}{"accepted":>10}{"refused":>9}{"bad":>6}{"memory":>11}{"slowest":>10}']
    for kind in [*dict.fromkeys(x['kind'] for x in results), 'all']:
        of_kind = [x for x in results if kind in (x['kind'], 'all')]
        bad, taken = sum(bool(x['bad']) for x in of_kind), sum(not x['bad'] and not x['status'] for x in of_kind)
        rows.append(
            f'{kind:9}{len(of_kind):8}{taken:10}{len(of_kind) - taken - bad:9}{bad:6}'
            f'{max(x["memory"] for x in of_kind) / 2**20:7.0f} MiB{max(x["cpu"] for x in of_kind):8.1f} s'
        )
    return '\n'.join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog='python tests/tools/fuzz.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('kinds', nargs='*', metavar='kind', help=f'one of {", ".join(TARGETS)} (default: all)')
    parser.add_argument('--count', type=int, default=200, help='number of inputs (default: %(default)s)')
    parser.add_argument('--first', type=int, default=0, help='number of the first input (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='selects the inputs (default: %(default)s)')
    parser.add_argument('--only', type=int, help='number of a single input to run, show and keep')
    parser.add_argument('--json', type=pathlib.Path, help='file for the results')
    options = parser.parse_args()
    kinds = options.kinds or [*TARGETS]
    if not set(kinds) <= set(TARGETS):
        parser.error(f'kinds must be among {", ".join(TARGETS)}')
    numbers = range(options.first, options.first + options.count) if options.only is None else [options.only]

    os.environ.update(
        JAX_PLATFORMS='cpu',
        TF_CPP_MIN_LOG_LEVEL='3',
        OPENBLAS_NUM_THREADS='1',
        XLA_FLAGS='--xla_backend_optimization_level=0',
    )
    for module in IMPORTED:
        importlib.import_module(module)
    folder, results = pathlib.Path(tempfile.mkdtemp(prefix='fuzz-')), []
    try:
        inputs = folder / 'inputs' / 'valid'
        written = run_forked(
            lambda: write_inputs({draw(number, options.seed, kinds)[1][0] for number in numbers}, inputs),
            folder / 'inputs' / 'home',
            600,
        )
        if written.status:
            sys.exit(f'{written.output}\nerror: the valid inputs could not be written')
        for number in numbers:
            case = folder / str(number)
            results.append(attempt(number, options.seed, kinds, inputs, case))
            result = results[-1]
            if result['bad'] or options.only is not None:
                print(
                    f'{number} ({result["kind"]}, {result["input"]}): {"; ".join(result["bad"])}',
                    *result['changes'],
                    ' '.join(result['argv']),
                    result['output'],
                    sep='\n  ',
                    flush=True,
                )
            if options.only is None:
                shutil.rmtree(case)
            if options.json and (number % 50 == 0 or number == numbers[-1]):
                options.json.write_text(json.dumps(results, indent=1))
        print(table(results))
    finally:
        print(f'kept: {folder}') if options.only is not None else shutil.rmtree(folder, ignore_errors=True)
    return int(any(result['bad'] for result in results))


if __name__ == '__main__':
    sys.exit(main())
