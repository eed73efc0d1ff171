"""Opens a trained model of any kind."""

import os
import pathlib

from sgmg_jax.convert import infer
from sgmg_jax.inference.predictor import Predictor


def open_model(
    name: str | os.PathLike, tokenizer: str | os.PathLike | None = None, checkpoint: str | int = 'best'
) -> Predictor:
    """A Predictor of a trained model.

    Args:
        name: what Predictor.from_pretrained takes, the workdir of a training run, or the authors' weights in a .pth or
            .safetensors.
        tokenizer: for the authors' weights, a folder of roberta-base.
        checkpoint: for a workdir, see checkpoints.Checkpoints.find.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as the methods of Predictor; ValueError also for a `tokenizer`
            or `checkpoint` that the model does not need.
    """
    path = pathlib.Path(name)
    is_run, is_file = (path / 'checkpoints').is_dir(), path.is_file()
    if tokenizer is not None and not is_file:
        raise ValueError(f'a tokenizer was given, but {name} has its own. Leave it out.')
    if checkpoint != 'best' and not is_run:
        raise ValueError(f'checkpoint = {checkpoint!r}: {name} is not the workdir of a run. Leave it out.')
    if is_run:
        return Predictor.from_workdir(path, checkpoint)
    if not is_file:
        return Predictor.from_pretrained(name)
    if tokenizer is None:
        raise ValueError(
            f'{name}: these are weights without a tokenizer. Give the folder of roberta-base, which has vocab.json and '
            'merges.txt.'
        )
    config = infer.config_of_files([path])
    config.init, config.data.tokenizer = (os.fspath(path),), os.fspath(tokenizer)
    return Predictor.from_weights(config)
