"""What a run stores in its workdir, and checks that a resumed run has the same config."""

from collections.abc import Iterator
import contextlib
import json
import pathlib

from flax import linen as nn
from ml_collections import ConfigDict
import tokenizers

from sgmg_jax import checkpoints, files, hosts
from sgmg_jax import config as configs
from sgmg_jax.data import records, text
from sgmg_jax.inference import restore

# Fields that may change when a run is resumed; another value of any other field makes it another run.
RESUMABLE = (
    'steps',
    'epochs',
    'log_every',
    'eval_every',
    'checkpoint_every',
    'stop_after_skipped',
    'storage_shards',
    'data.records',
    'data.workers',
    'data.on_bad_clip',
    'model.remat',
    'evaluation',
)


def resumed_step(config: ConfigDict, workdir: pathlib.Path) -> int | None:
    """The latest step of the run in `workdir`; None before its first checkpoint.

    Raises:
        ValueError: if the run was started with another config, or its checkpoint is damaged.
    """
    with contextlib.closing(checkpoints.Checkpoints(workdir, read_only=True)) as saved:
        step = saved.latest_step()
        if step is not None:
            check_config(config, saved.restore_config(step), workdir)
    return step


def check_config(config: ConfigDict, stored: dict, workdir: pathlib.Path) -> None:
    """Raises ValueError, naming the fields, if the run in `workdir` was started with another config.

    stored: the JSON of its config, from the checkpoint.
    """
    old = configs.from_json(stored, f'{workdir}: the config of its checkpoint')
    differences = list(_differences(configs.to_json(old), configs.to_json(config)))
    if differences:
        raise ValueError(
            f'{workdir}: holds a run with another config: '
            + '; '.join(f'{field} was {was!r}, is now {now!r}' for field, was, now in differences)
            + '. Use another --workdir, or the config that the run was started with.'
        )


def _differences(old: dict, new: dict, prefix: str = '') -> Iterator[tuple[str, object, object]]:
    for field in sorted(set(old) | set(new)):
        path = prefix + field
        was, now = old.get(field), new.get(field)
        if path in RESUMABLE or was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, path + '.')
        else:
            yield path, was, now


def prepare_tokenizer(
    config: ConfigDict, model: nn.Module, source: records.Records, workdir: pathlib.Path, resumed: bool
) -> tokenizers.Tokenizer:
    """The tokenizer of config.data.tokenizer or beside the weights of config.init; without either, byte pairs learned
    from the training sentences. A resumed run uses the one in its workdir.

    Raises:
        ValueError: if the tokenizer has more tokens than the text encoder, or two tokenizers differ.
    """
    if resumed:
        return text.load_tokenizer(workdir / 'tokenizer.json')
    path = restore.tokenizer_path(config)
    if path is None:
        return text.train_tokenizer(
            [e.text for video in source.videos for e in video.expressions], model.text_encoder.vocabulary
        )
    tokenizer = text.load_tokenizer(path)
    try:
        restore.check_vocabulary(tokenizer, model.text_encoder)
    except ValueError as error:
        raise ValueError(f'config.data.tokenizer = {path!r}: {error}') from error
    return tokenizer


def write(config: ConfigDict, tokenizer: tokenizers.Tokenizer, workdir: pathlib.Path) -> tokenizers.Tokenizer:
    """Writes config.json and tokenizer.json from the first process; returns the tokenizer as all processes read it."""
    if hosts.is_first():
        with files.replacing(workdir / 'config.json') as partial:
            partial.write_text(json.dumps(configs.to_json(config), indent=1))
        text.save_tokenizer(tokenizer, workdir)
    hosts.wait('config and tokenizer are written')
    return text.load_tokenizer(workdir / 'tokenizer.json')
