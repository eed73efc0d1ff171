"""What a run logs and shows."""

import collections
from collections.abc import Callable, Iterator, Mapping
import time
from typing import Any

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
    """The steps since the last line of the log.

    headline: name and last value of the main score, for the progress bar.
    """

    def __init__(
        self, config: ConfigDict, source: records.Records, schedule: Callable[[Any], Any], writer: MetricWriter
    ) -> None:
        """schedule: function(steps done and not skipped) -> factor on the learning rate."""
        self._config, self._source, self._schedule, self._writer = config, source, schedule, writer
        self.headline: dict[str, str] = {}
        self._steps: list[tuple[int, np.ndarray | jax.Array, Mapping[str, jax.Array]]] = []
        self._skipped: collections.deque[str] = collections.deque(maxlen=100)  # clips of skipped steps
        self.restart_clock()

    def restart_clock(self) -> None:
        """Excludes the time until now from the steps per second."""
        self._since, self._waited, self._timed = time.monotonic(), 0.0, 0

    def next_batch(self, batches: Iterator[types.Example]) -> types.Example:
        """The next batch. The wait counts as waiting for data only if the previous step has finished by its end."""
        started = time.monotonic()
        batch = next(batches)
        loss: Any = self._steps[-1][2]['loss'] if self._steps else None
        if loss is None or loss.is_ready():
            self._waited += time.monotonic() - started
        return batch

    def add(self, step: int, origin: np.ndarray | jax.Array, metrics: Mapping[str, jax.Array]) -> None:
        """Adds a step. origin: of its types.Example. metrics: of training.step."""
        self._steps.append((step, origin, metrics))
        self._timed += 1

    def log_steps(self, step: int) -> dict[str, float]:
        """Writes and returns the means of all added steps and the learning rate of the last one, `step`; then starts
        over."""
        means = self._means()
        # Skipped steps do not advance the schedule.
        factor = float(self._schedule(step - 1 - means['skipped']))
        means['learning_rate'] = factor * self._config.optimizer.learning_rate
        self._writer.write(step, means, shown=[name for name in SHOWN if name in means])
        self._steps.clear()
        self.restart_clock()
        return means

    def log_scores(self, step: int, summary: Mapping[str, Any]) -> float:
        """Writes the scores of a validation; returns the main one, J&F or mAP."""
        name = 'J&F' if 'J&F' in summary else 'mAP'
        self.headline = {name: f'{summary[name]:.1f}'}
        self._writer.write(
            step,
            flatten_scores(summary),
            shown=[f'valid/{shown}' for shown in (name, *SHOWN_SCORES) if shown in summary],
        )
        self.restart_clock()
        return summary[name]

    def skipped_clips(self) -> str:
        """This process's clips in the last consecutive skipped steps, at most 100 steps."""
        return '; '.join(self._skipped)

    def _means(self) -> dict[str, float]:
        """Mean metrics over steps that were not skipped; steps per second; and the fraction of time that the device
        waited for data, as an upper bound. Logs the clips of skipped steps."""
        means: dict[str, float] = {}
        applied: list[dict[str, float]] = []
        for step, origin, arrays in self._steps:
            metrics = {name: float(x) for name, x in arrays.items()}
            means |= {name: metrics[name] for name in ('skipped', 'skipped_in_a_row')}
            if not metrics['skipped_in_a_row']:
                applied.append(metrics)
                self._skipped.clear()
                continue
            names = _clip_names(self._source, origin)
            self._skipped.append(names)
            logging.warning(
                'skipped step %d, whose gradient is not finite: loss %s, clips %s', step, metrics['loss'], names
            )
        if applied:
            means = {name: float(np.mean([metrics[name] for metrics in applied])) for name in metrics} | means
        seconds = time.monotonic() - self._since
        return means | {'steps_per_second': self._timed / seconds, 'waited_for_data': self._waited / seconds}


def _clip_names(source: records.Records, origin: np.ndarray | jax.Array) -> str:
    """The clips of a types.Example.origin, in words."""
    return ', '.join(
        f'{source.videos[number].name} around frame {source.videos[number].frame_names[centre]}'
        for number, centre in origin.tolist()
    )


def flatten_scores(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a scoring summary as scalars to log; for tags only J, F and J&F."""
    scalars = {f'valid/{name}': value for name, value in summary.items() if isinstance(value, float)}
    for tag, scores in summary.get('tags', {}).items():
        scalars |= {f'valid/{tag}/{name}': scores[name] for name in ('J', 'F', 'J&F')}
    return scalars
