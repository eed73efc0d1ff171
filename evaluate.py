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
from absl import app, flags
from ml_collections import config_flags

from sgmg_jax import checkpoints, hosts, score
from sgmg_jax.inference import evaluate

CONFIG = config_flags.DEFINE_config_file('config', None, 'Experiment, a file of configs/.', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'The --workdir that train.py was run with.')
CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', "'best' (validation score), 'latest' or a step.")
SHUFFLE = flags.DEFINE_bool('shuffle_sentences', False, 'Ask with the sentences of other objects.')
hosts.define_flags()
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'unknown argument {argv[1]!r}')
    checkpoints.quiet()
    hosts.initialize()
    summary = evaluate.evaluate(CONFIG.value, WORKDIR.value, CHECKPOINT.value, SHUFFLE.value)
    if summary:
        print(score.format_scores(summary))


if __name__ == '__main__':
    app.run(main)
