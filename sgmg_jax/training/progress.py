"""What is logged and shown of a run."""
import collections
from collections.abc import Callable, Iterator, Mapping
import time

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np

from sgmg_jax import types
from sgmg_jax.data import records
from sgmg_jax.training.logging import MetricWriter

SHOWN = 'loss', 'loss_dice', 'query_accuracy', 'steps_per_second'  # on the console; the rest is in the files
SHOWN_SCORES = 'J', 'F', 'overall_IoU', 'mean_IoU'


class Progress:
    """What happened since the last line of the log.

    headline: the name of the score that counts and its last value, for the progress bar.
    """

    def __init__(self, config: ConfigDict, source: records.Records, schedule: Callable, writer: MetricWriter):
        """schedule: function(steps done and not skipped) -> factor on the learning rate."""
        self._config, self._source, self._schedule, self._writer = config, source, schedule, writer
        self.headline = {}
        self._steps, self._skipped = [], collections.deque(maxlen=100)  # clips of skipped steps
        self.restart_clock()

    def restart_clock(self) -> None:
        """What came before does not count in steps a second."""
        self._since, self._waited, self._timed = time.monotonic(), 0.0, 0

    def next_batch(self, batches: Iterator[types.Example]) -> types.Example:
        """The next batch. To wait for it counts as waiting only where the step before is done by then."""
        started = time.monotonic()
        batch = next(batches)
        if not self._steps or self._steps[-1][2]['loss'].is_ready():
            self._waited += time.monotonic() - started
        return batch

    def add(self, step: int, origin: np.ndarray, metrics: Mapping[str, jax.Array]) -> None:
        """origin: of the step's types.Example. metrics: of training.step."""
        self._steps.append((step, origin, metrics))
        self._timed += 1

    def log_steps(self, step: int) -> dict[str, float]:
        """Writes what `_means` gives and the learning rate of the last step, `step`; returns them and begins anew."""
        means = self._means()
        # Steps that were skipped do not bring the schedule on.
        factor = float(self._schedule(step - 1 - means['skipped']))
        means['learning_rate'] = factor * self._config.optimizer.learning_rate
        self._writer.write(step, means, shown=[name for name in SHOWN if name in means])
        self._steps.clear()
        self.restart_clock()
        return means

    def log_scores(self, step: int, summary: Mapping[str, object]) -> float:
        """Writes the scores of a validation; returns the one that counts, J&F or mAP."""
        name = 'J&F' if 'J&F' in summary else 'mAP'
        self.headline = {name: f'{summary[name]:.1f}'}
        self._writer.write(step, flatten_scores(summary), shown=[
            f'valid/{shown}' for shown in (name, *SHOWN_SCORES) if shown in summary])
        self.restart_clock()
        return summary[name]

    def skipped_clips(self) -> str:
        """The clips of this process in the last steps that were skipped in a row, 100 steps at most."""
        return '; '.join(self._skipped)

    def _means(self) -> dict[str, float]:
        """Metrics over the steps that were not skipped, which are named in the log; steps a second, and the share of
        the time in which the device had to wait for data, at most."""
        means, applied = {}, []
        for step, origin, metrics in self._steps:
            metrics = {name: float(x) for name, x in metrics.items()}
            means |= {name: metrics[name] for name in ('skipped', 'skipped_in_a_row')}
            if not metrics['skipped_in_a_row']:
                applied.append(metrics)
                self._skipped.clear()
                continue
            names = _clip_names(self._source, origin)
            self._skipped.append(names)
            logging.warning('skipped step %d, whose gradient is not finite: loss %s, clips %s', step, metrics['loss'],
                            names)
        if applied:
            means = {name: float(np.mean([metrics[name] for metrics in applied])) for name in metrics} | means
        seconds = time.monotonic() - self._since
        return means | {'steps_per_second': self._timed / seconds, 'waited_for_data': self._waited / seconds}


def _clip_names(source: records.Records, origin: np.ndarray) -> str:
    """Of a batch's types.Example.origin, this process's clips."""
    return ', '.join(f'{source.videos[number].name} around frame {source.videos[number].frame_names[centre]}'
                     for number, centre in origin.tolist())


def flatten_scores(summary: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a scoring summary as scalars to log; of its tags J, F and J&F."""
    scalars = {f'valid/{name}': value for name, value in summary.items() if isinstance(value, float)}
    for tag, scores in summary.get('tags', {}).items():
        scalars |= {f'valid/{tag}/{name}': scores[name] for name in ('J', 'F', 'J&F')}
    return scalars
