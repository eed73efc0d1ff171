"""Evaluates a trained model: leaderboard files, scores, pictures.

    python evaluate.py --config=configs/ytvos.py --workdir=runs/ytvos

writes runs/ytvos/evaluation/ref_youtube_vos_valid/: what the benchmark of config.evaluation.protocol takes
(Annotations/ and submission.zip for the leaderboard of Ref-YouTube-VOS), overlays.png to look at, and, where the split
has ground truth, scores.json.
Interrupted, the same command goes on after the last finished video. Another benchmark with the same model: its config
and the same --workdir, as --config=configs/davis.py --workdir=runs/ytvos. Weights without a run, such as the
authors': a new --workdir and --config.init=PATH. With --shuffle_sentences every sentence is scored against another
object of its video, a control that a model that reads must fail.
"""
import sys

from absl import flags

from sgmg_jax import commands


def define_flags(values):
    """Those that only this script has."""
    flags.DEFINE_string('checkpoint', 'best', "'best' (by validation score; the latest where none has one), 'latest' "
                                              'or a step.', values)
    flags.DEFINE_bool('shuffle_sentences', False, 'Ask with the sentences of other objects.', values)


def evaluate(values):
    """Prints the table of scores, where there are any."""
    from sgmg_jax import hosts, score
    from sgmg_jax.inference import evaluate
    hosts.initialize(values.distributed, values.coordinator, values.process_count, values.process_index)
    summary = evaluate.evaluate(values.config, values.workdir, values.checkpoint, values.shuffle_sentences)
    if summary:
        print(score.format_scores(summary))


if __name__ == '__main__':
    sys.exit(commands.run_experiment(evaluate, __doc__, 'The --workdir that train.py was run with.', define_flags))
