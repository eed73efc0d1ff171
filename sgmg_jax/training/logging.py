"""Metrics of a run: console, JSON lines, TensorBoard."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib

from absl import logging
import tensorboardX

from sgmg_jax import files


class MetricWriter:
    """Writes scalars of a step to <workdir>/metrics.jsonl, <workdir>/tensorboard and the log.

    A resumed run removes what was written after the step it resumes from, so both read as if the run had never been
    interrupted.
    """

    def __init__(self, workdir: str | os.PathLike, start_step: int, active: bool = True) -> None:
        """active: whether this process writes."""
        self._active = active
        if not active:
            return
        self._path = pathlib.Path(workdir) / 'metrics.jsonl'
        if self._path.exists():
            lines = files.read_text(self._path).splitlines(keepends=True)
            kept = [
                line
                for number, line in enumerate(lines, 1)
                if line.endswith('\n') and _step_of(line, f'{self._path}: line {number}') <= start_step
            ]
            with files.replacing(self._path) as partial:
                partial.write_text(''.join(kept))
        self._lines = self._path.open('a')
        self._board = tensorboardX.SummaryWriter(
            os.fspath(pathlib.Path(workdir) / 'tensorboard'), purge_step=start_step + 1, flush_secs=30
        )

    def write(self, step: int, scalars: Mapping[str, float], shown: Sequence[str] = ()) -> None:
        """shown: the names of the scalars that also go to the console."""
        if not self._active:
            return
        try:
            self._lines.write(json.dumps({'step': step, **scalars}) + '\n')
            self._lines.flush()
        except OSError as error:
            raise OSError(
                error.errno,
                f'cannot write {self._path}: {error.strerror}. Free some space and start '
                'again: training resumes from the latest checkpoint',
            ) from error
        for name, value in scalars.items():
            # TensorBoard does not allow '&' and '@' in names.
            self._board.add_scalar(name.replace('&', '').replace('@', '_'), value, step)
        logging.info('step %d: %s', step, ', '.join(f'{name} {scalars[name]:.4g}' for name in shown))

    def close(self) -> None:
        if not self._active:
            return
        self._lines.close()
        self._board.close()


def _step_of(line: str, where: str) -> int:
    row = files.parse_json(line, where)
    step = row.get('step') if isinstance(row, dict) else None
    if not isinstance(step, int):
        raise ValueError(f'{where}: has no "step". Remove the line or the file: the run continues without it.')
    return step
