"""Kills a training run again and again, and compares its result with an undisturbed run.

    python -m sgmg_jax.benchmarks.accidents --kills=10 -- --config=configs/synthetic.py --config.steps=100 \\
        --config.checkpoint_every=10 --config.eval_every=30 --config.log_every=1 --config.evaluation.videos=2

Arguments after `--` go to train.py in the current folder; this example uses the data of `make learn`. SIGKILL ends the
run at a random time, wherever it is: starting, loading, in a step, saving, in validation. The same command resumes it,
and after the last kill completes it. All arrays of the last checkpoint (parameters, optimizer, moving average) must be
equal bit for bit, and so must every line of metrics.jsonl except for timings: every step saw the same data.

Removes the runs of an earlier call from --out. If another folder is in their place, or a run is in use, it removes and
starts nothing.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import tqdm

from sgmg_jax import commands, files

TIMINGS = 'steps_per_second', 'waited_for_data'


def run(
    command: Sequence[str], workdir: pathlib.Path, kill: Callable[[int | None], bool] | None = None
) -> tuple[str, bool]:
    """Runs train.py until it ends, or until kill(number of lines in its metrics.jsonl, None before it exists) is True.

    Returns:
        the last line of its log, and whether it was killed.

    Raises:
        ValueError: train.py rejected its arguments; has its message.
        ChildProcessError: it failed in any other way.
    """
    log, metrics = workdir.with_suffix('.log'), workdir / 'metrics.jsonl'
    before = metrics.stat().st_ino if metrics.exists() else None
    with log.open('w') as output:
        process = subprocess.Popen([*command, f'--workdir={workdir}'], stdout=output, stderr=output)
        killed = False
        try:
            while process.poll() is None and not killed:
                # A resumed run writes a new file.
                written = metrics.exists() and metrics.stat().st_ino != before
                killed = kill is not None and kill(len(metrics.read_text().splitlines()) if written else None)
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
    last = ([line for line in re.split(r'[\n\r]', log.read_text(errors='replace')) if line.strip()] or [''])[-1]
    if process.returncode == 2:
        raise ValueError(f'train.py: {last.removeprefix("error: ")}')
    if process.returncode and not (killed and process.returncode == -signal.SIGKILL):
        how = f'status {process.returncode}' if process.returncode > 0 else signal.Signals(-process.returncode).name
        raise ChildProcessError(f'{log}: train.py failed with {how}. Last line: {last}')
    return last, process.returncode != 0


def random_instant(rng: np.random.Generator, steps: int, seconds: float) -> Callable[[int | None], bool]:
    """A `kill` for `run`: at a random time during start-up, or after up to `steps` more steps of so many seconds."""
    started = time.monotonic()
    resumed_with: int | None = None
    reached: float | None = None
    starting, early = rng.random() < 0.2, rng.uniform(0, 20)
    more, delay = rng.integers(1, max(2, steps + 1)), rng.uniform(0, 2 * seconds)

    def kill(lines: int | None) -> bool:
        nonlocal resumed_with, reached
        if starting:
            return time.monotonic() - started > early
        if lines is None:
            return False
        if resumed_with is None:
            resumed_with = lines
        if reached is None and lines >= resumed_with + more:
            reached = time.monotonic()
        return reached is not None and time.monotonic() - reached > delay

    return kill


def lines_of(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl without timings."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """The differences between two workdirs, as messages."""
    from sgmg_jax.checkpoints import Checkpoints

    found: list[str] = []
    steps = [Checkpoints(workdir, read_only=True).latest_step() for workdir in (one, other)]
    if steps[0] is None or steps[0] != steps[1]:
        return [f'last checkpoints are of steps {steps[0]} and {steps[1]}']
    ours, theirs = (Checkpoints(workdir, read_only=True).read(steps[0]) for workdir in (one, other))
    found += [f'only one of the checkpoints has {path}' for path in sorted(set(ours) ^ set(theirs))]
    found += [
        f'{path} differs'
        for path in sorted(set(ours) & set(theirs))
        if np.asarray(ours[path]).tobytes() != np.asarray(theirs[path]).tobytes()
    ]
    lines = [lines_of(workdir) for workdir in (one, other)]
    found += [
        f'metrics.jsonl differs from line {i + 1} on'
        for i in range(max(map(len, lines)))
        if lines[0][i : i + 1] != lines[1][i : i + 1]
    ][:1]
    return found


def remove_runs(workdirs: Sequence[pathlib.Path]) -> None:
    """Removes the runs of an earlier call, either all or none.

    Raises:
        ValueError: one of the folders is not a training run.
        BlockingIOError: a process trains in one of them.
    """
    with contextlib.ExitStack() as stack:
        existing = [workdir for workdir in workdirs if os.path.lexists(workdir)]
        for workdir in existing:
            names = set(os.listdir(workdir))
            # A run that was killed during start-up has no config yet.
            if workdir.is_symlink() or 'config.json' not in names and not names <= {'.lock', 'checkpoints'}:
                raise ValueError(
                    f'{workdir}: is not a training run, so it is not removed. Move it, or choose another --out.'
                )
        for workdir in existing:
            stack.enter_context(files.locked(workdir / '.lock', 'removing it'))
        for workdir in existing:
            shutil.rmtree(workdir)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0 if the runs are equal, 1 if not, 2 after an error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, theirs = (
        (arguments[: arguments.index('--')], arguments[arguments.index('--') + 1 :])
        if '--' in arguments
        else (arguments, [])
    )
    parser = commands.make_parser('python -m sgmg_jax.benchmarks.accidents', __doc__)
    parser.add_argument(
        '--kills', type=commands.whole(1, 10**4), default=10, metavar='N', help='number of kills (default: %(default)s)'
    )
    parser.add_argument(
        '--out',
        type=pathlib.Path,
        default='runs/accidents',
        metavar='FOLDER',
        help='folder of the two runs, which start from scratch (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=commands.whole(0, 2**32 - 1),
        default=0,
        metavar='N',
        help='of the random times (default: %(default)s)',
    )
    return commands.exit_with(functools.partial(_work, theirs), parser, ours)


def _work(theirs: Sequence[str], options: argparse.Namespace) -> int:
    if not theirs:
        raise ValueError('the flags of train.py are missing. Give them after --, see --help.')
    if any(re.match('--?workdir(=|$)', word) for word in theirs):
        raise ValueError('--workdir: must not be given. Set the folder of the two runs with --out.')
    if not os.path.isfile('train.py'):
        raise FileNotFoundError('train.py: not found. Run from the root of the repository.')
    with files.locked(options.out / '.lock', 'benchmarks.accidents'):
        return _compare(theirs, options)


def _compare(theirs: Sequence[str], options: argparse.Namespace) -> int:
    quiet, killed = options.out / 'undisturbed', options.out / 'killed'
    remove_runs((quiet, killed))
    # Compile once: otherwise every start would take that long. Not in the user's cache: a process that is killed while
    # it writes there leaves half a program.
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str((options.out / 'compiled').absolute()))
    command = [sys.executable, 'train.py', *theirs]
    run(command, quiet)
    rates = [
        line['steps_per_second']
        for line in map(json.loads, (quiet / 'metrics.jsonl').read_text().splitlines())
        if 'steps_per_second' in line
    ]
    rng, count = np.random.default_rng(options.seed), 0
    for _ in tqdm.trange(options.kills, unit='kill'):
        kill = random_instant(rng, round(2 * len(rates) / options.kills), 1 / max(rates))
        last, was_killed = run(command, killed, kill)
        if not was_killed:
            tqdm.tqdm.write('the run ended before the next kill')
            break
        count += 1
        tqdm.tqdm.write(f'kill {count}: {last[:110]}')
    run(command, killed)
    found = differences(quiet, killed)
    print('\n'.join(found) or f'equal bit for bit after {count} {"kill" if count == 1 else "kills"}')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
