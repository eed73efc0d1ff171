"""Where a trained model is: in the package, in a folder, or on the Hugging Face Hub."""

import importlib
import os
import pathlib
import re

from sgmg_jax import files
from sgmg_jax.convert import folder

BOX = pathlib.Path(__file__).parent.parent / 'pretrained'  # the models that come with the package


def find(name: str | os.PathLike) -> pathlib.Path:
    """The model folder of a name; see Predictor.from_pretrained, whose errors it raises.

    A model folder comes first, then a model of the package, then the hub.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f'{name!r:.100}: must be a model folder, {", ".join(boxed())}, or owner/name on the hub.')
    path = pathlib.Path(name)
    if folder.is_model_folder(path):
        return path
    if str(name) in boxed():
        return BOX / str(name)
    if path.is_dir():
        hint = (
            f'It is the workdir of a run: python -m sgmg_jax.convert from-run {path} makes a model folder of it.'
            if (path / 'checkpoints').is_dir()
            else f'It needs {folder.CONFIG} and {folder.WEIGHTS}.'
        )
        raise FileNotFoundError(f'{path}: is not a model folder. {hint}')
    if path.exists() or not re.fullmatch(r'[\w.-]+/[\w.-]+', str(name)):
        raise FileNotFoundError(
            f'{files.printable(str(name))}: no such model folder. Give a folder, {", ".join(map(repr, boxed()))} for '
            'the model that comes with the package, or owner/name on the Hugging Face Hub.'
        )
    return _download(str(name))


def boxed() -> list[str]:
    """Names of the models that come with the package."""
    return files.listing(BOX)[0] if BOX.is_dir() else []


def _download(name: str) -> pathlib.Path:
    try:
        hub = importlib.import_module('huggingface_hub')
    except ImportError as error:
        raise ConnectionError(
            f'{name}: no such folder. To look for it on the Hugging Face Hub, run pip install huggingface_hub.'
        ) from error
    try:
        return pathlib.Path(
            hub.snapshot_download(name, allow_patterns=[folder.CONFIG, folder.WEIGHTS, folder.TOKENIZER, folder.CARD])
        )
    except Exception as error:  # The library and those below it raise anything without a network.
        reason = files.one_line(next(iter(str(error).splitlines()), type(error).__name__), 200)
        raise ConnectionError(
            f'{name}: no such folder, and the Hugging Face Hub did not give it ({reason}). Check the name and the '
            'network, or give a folder.'
        ) from error
