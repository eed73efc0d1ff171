"""Evaluates a trained model: leaderboard files, scores, pictures.

    python evaluate.py --config=configs/ytvos.py --workdir=runs/ytvos
    sgmg-jax evaluate --config=ytvos --workdir=runs/ytvos      # the same, outside a checkout

writes runs/ytvos/evaluation/ref_youtube_vos_valid/ with the files of the benchmark that config.evaluation.protocol
selects (Annotations/ and submission.zip for the leaderboard of Ref-YouTube-VOS), overlays.png to look at, and, if the
split has ground truth, scores.json. Re-run the same command to resume after the last finished video.

For another benchmark with the same model give its config and the same --workdir: --config=configs/davis.py
--workdir=runs/ytvos. For weights without a run, such as the authors', give a new --workdir and --config.init=PATH.
--score_another_object scores each mask against another object of its video, a sanity check: a model that uses the
sentence should score low. --try_thresholds scores MeViS at thresholds from 0 to 0.99, to choose
config.evaluation.threshold; choose on other clips than you report.
"""

from collections.abc import Sequence
import sys

from absl import flags

from sgmg_jax import commands


def define_flags(values: flags.FlagValues) -> None:
    """The flags that only this script has."""
    flags.DEFINE_string(
        'checkpoint', 'best', "'best' validation score (the latest if none has a score), 'latest' or a step.", values
    )
    flags.DEFINE_bool(
        'score_another_object', False, 'Sanity check: score each mask against another object of its video.', values
    )
    flags.DEFINE_bool(
        'try_thresholds', False, 'Print the scores of MeViS at many values of config.evaluation.threshold.', values
    )


def evaluate(values: flags.FlagValues) -> None:
    """Evaluates and prints the table of scores if there is ground truth."""
    from sgmg_jax import hosts, score
    from sgmg_jax.inference import evaluate, thresholds

    hosts.initialize(values.distributed, values.coordinator, values.process_count, values.process_index)
    if values.try_thresholds:
        if values.score_another_object:
            raise ValueError('--try_thresholds and --score_another_object: give one of them.')
        found = thresholds.try_thresholds(values.config, values.workdir, values.checkpoint)
        if found:
            print(thresholds.format_thresholds(found))
        return
    summary = evaluate.evaluate(values.config, values.workdir, values.checkpoint, values.score_another_object)
    if summary:
        print(score.format_scores(summary))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return commands.run_experiment(
        evaluate,
        __doc__,
        'The --workdir of train.py.',
        define_flags,
        argv=None if argv is None else ['evaluate', *argv],
    )


if __name__ == '__main__':
    sys.exit(main())
