"""What the fields of an experiment's config may be, and what earlier versions meant by the fields they lacked.

The fields themselves, and their defaults, are in configs/common.py. A run keeps its config in its workdir and in every
checkpoint, with the number of the format; whatever version wrote it, `from_json` gives a config of today that means the
same.
"""
from collections.abc import Callable, Iterator
import difflib
import json
import os
import pathlib
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from sgmg_jax import files

# Raise it with every field that is added, and say in ADDED what runs without the field did.
FORMAT = 1
MOST_PIXELS = 2 ** 32  # of a batch of clips; 50 GB as float32
LARGEST = 2 ** 24  # bytes of a stored config


class Added(NamedTuple):
    """A field that earlier formats lack.

    format: the first that has it. path: of the field. value: with which a run that lacks it goes on as it began; a
    function of the stored config where that depends on other fields. system: config.model.name that has it; None: all.
    """
    format: int
    path: str
    value: Any | Callable[[dict], Any]
    system: str | None = None


ADDED = (
    Added(1, 'fsdp', 1),
    Added(1, 'accumulate', 1),
    Added(1, 'ema_decay', 0.0),
    Added(1, 'stop_after_skipped', 20),
    Added(1, 'init', []),
    Added(1, 'init_skip', ''),
    Added(1, 'loss', {}),
    Added(1, 'data.sentences', 1),
    Added(1, 'data.consecutive', False),
    Added(1, 'evaluation.sentences', 1),
    Added(1, 'optimizer.batch_size', lambda config: config['data']['batch_size']),
)


class Number(NamedTuple):
    """A whole number, or any where `whole` is False, from `low` to `high`; None too, where `optional`."""
    low: float
    high: float
    whole: bool = True
    optional: bool = False

    def fault(self, value) -> str | None:
        if value is None and self.optional:
            return None
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not self.low <= value <= self.high:
            kind = 'a whole number' if self.whole else 'a number'
            return f'must be {kind} from {self.low:g} to {self.high:g}' + ', or None' * self.optional
        return None


class OneOf(NamedTuple):
    choices: tuple

    def fault(self, value) -> str | None:
        if not any(value is choice or type(value) is type(choice) and value == choice for choice in self.choices):
            return f'must be one of {", ".join(map(repr, self.choices))}'
        return None


class Text(NamedTuple):
    optional: bool = False
    empty: bool = False

    def fault(self, value) -> str | None:
        if value is None and self.optional or isinstance(value, str) and (value or self.empty):
            return None
        return 'must be text' + ', or None' * self.optional


class Several(NamedTuple):
    """A tuple or list of `least` items or more, or exactly `count`, each of which `item` allows; or a single text, if
    `single`, which stands for a tuple of it."""
    item: Any
    least: int = 0
    count: int | None = None
    single: bool = False

    def fault(self, value) -> str | None:
        if self.single and isinstance(value, str):
            value = (value,)
        many = f'{self.count}' if self.count is not None else f'{self.least} or more'
        if not isinstance(value, tuple | list) or (
                len(value) != self.count if self.count is not None else len(value) < self.least):
            return f'must be a tuple of {many} items'
        return next((f'{fault} (item {i})' for i, x in enumerate(value) if (fault := self.item.fault(x))), None)


class Group(NamedTuple):
    def fault(self, value) -> str | None:
        if not isinstance(value, tuple | list) or len(value) != 2 or Text().fault(value[0]) or _RATE.fault(value[1]):
            return 'must be (regular expression, learning rate)'
        return None


def _count(high: int, low: int = 1, **options) -> Number:
    return Number(low, high, **options)


_SWITCH, _PROBABILITY, _PATHS = OneOf((False, True)), Number(0, 1, whole=False), Several(Text(), single=True)
_PORTION = Number(0, 0.999999, whole=False)  # in [0, 1)
_RATE = Number(0, 100, whole=False)
_STEPS = 10 ** 9
_SIDE = _count(8192, 16)
RULES = {
    'seed': Number(0, 2 ** 31 - 1),
    'steps': Number(0, _STEPS),
    'epochs': Number(0, 1e6, whole=False),
    'log_every': _count(_STEPS),
    'eval_every': _count(_STEPS),
    'checkpoint_every': _count(_STEPS),
    'init': _PATHS,
    'init_skip': Text(empty=True),
    'fsdp': _count(2 ** 16),
    'accumulate': _count(2 ** 16),
    'ema_decay': _PORTION,
    'stop_after_skipped': _count(_STEPS),
    'loss.weights': Text(),
    'model.name': Text(),
    'model.backbone': Text(),
    'model.text_encoder': Text(),
    **{f'model.{name}': _count(2 ** 14) for name in ('hidden', 'mlp', 'cluster_mlp')},
    **{f'model.{name}': _count(1000) for name in ('queries', 'classes')},
    **{f'model.{name}': _count(64) for name in (
        'levels', 'heads', 'points', 'encoder_layers', 'decoder_layers', 'cluster_encoder_layers',
        'cluster_decoder_layers')},
    'model.cluster_window': Number(0, 10_000),
    **{f'model.{name}': _SWITCH for name in ('box_refinement', 'relative_coordinates', 'remat')},
    **{f'model.{name}': _PORTION for name in ('dropout', 'text_dropout', 'drop_path')},
    'model.dtype': OneOf(('float32', 'bfloat16')),
    **{f'model.{name}': Text() for name in ('decoupling', 'inference_layer', 'contrast_scale')},
    'data.records': _PATHS._replace(least=1),
    'data.train_split': Text(),
    'data.valid_split': Text(),
    'data.tokenizer': Text(optional=True),
    'data.num_frames': _count(1000),
    'data.sentences': _count(1000),
    'data.frame_size': Several(_SIDE, count=2),
    'data.text_length': _count(2 ** 14, 3),
    'data.batch_size': _count(2 ** 20),
    'data.workers': Number(0, 1000),
    'data.reverse_probability': _PROBABILITY,
    'data.consecutive': _SWITCH,
    'data.on_bad_clip': OneOf(('raise', 'skip')),
    'data.augmentation.order': Several(Text()),
    **{f'data.augmentation.{name}': Several(_SIDE, least=1) for name in ('scales', 'crop_scales', 'cropped_scales')},
    **{f'data.augmentation.{name}': _SIDE for name in ('max_size', 'cropped_max_size')},
    'data.augmentation.crop_size': Several(_SIDE, count=2),
    **{f'data.augmentation.{name}': _PROBABILITY for name in ('crop_probability', 'flip_probability')},
    'evaluation.protocol': Text(),
    'evaluation.records': _PATHS,
    'evaluation.split': Text(),
    'evaluation.short_side': _SIDE,
    'evaluation.max_side': _SIDE._replace(optional=True),
    'evaluation.clip_frames': _count(1000),
    'evaluation.sentences': _count(1000),
    'evaluation.videos': _count(_STEPS, optional=True),
    'optimizer.batch_size': _count(2 ** 20),
    'optimizer.learning_rate': _RATE,
    'optimizer.groups': Several(Group()),
    'optimizer.freeze': Several(Text()),
    'optimizer.weight_decay': _RATE,
    'optimizer.clip_norm': Number(1e-12, 1e12, whole=False),
    'optimizer.warmup_steps': Number(0, _STEPS),
    'optimizer.drop_steps': Several(Number(0, _STEPS)),
    'optimizer.drop_epochs': Several(Number(0, 1e6, whole=False)),
}
SECTIONS = {path.rpartition('.')[0] for path in RULES} - {''}


def check(config: ConfigDict, where: str = 'config') -> None:
    """Checks every field by itself, before memory or time is taken.

    Whether fields fit each other, the data and the weights, say those that bring them together.

    Args:
        where: what stands before the field's name in a message.

    Raises:
        ValueError: naming field, value and what it may be: a field that there is not, that lacks, or is out of range.
    """
    found = dict(fields(config))
    for path, value in found.items():
        check_field(path, where)
        fault = RULES[path].fault(value)
        if fault:
            raise ValueError(f'{where}.{path} = {value!r:.200}: {fault}.')
    absent = next((path for path in RULES if path not in found and not path.startswith(('model.', 'loss.'))), None)
    absent = absent or next((path for path in ('model.name', 'model.backbone', 'model.text_encoder', 'model.dtype')
                             if path not in found), None)
    if absent:
        raise ValueError(f'{where}.{absent}: is missing. configs/common.py has it with its default.')
    height, width = found['data.frame_size']
    pixels = found['data.batch_size'] * found['data.num_frames'] * height * width
    if pixels > MOST_PIXELS:
        raise ValueError(f'{where}.data: batch_size, num_frames and frame_size make {pixels:,} pixels a step, more '
                         f'than {MOST_PIXELS:,}. Lower one of them.')


def check_field(path: str, where: str = 'config') -> None:
    """Raises ValueError for a field that no config has; names the one that may be meant."""
    if path not in RULES:
        near = ''.join(f' Did you mean {name}?' for name in difflib.get_close_matches(path, RULES, 1))
        raise ValueError(f'{where}.{path}: there is no such field; configs/common.py has them all.{near}')


def fields(config, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """(path, value) of every field of a config, or of its JSON; sections by dots."""
    for name, value in config.items():
        path = f'{prefix}{name}'
        if hasattr(value, 'items'):
            yield from fields(value, f'{path}.')
        else:
            yield path, value


def paths(value: str | os.PathLike | tuple | list) -> tuple[str, ...]:
    """Of config.init and `records`, which take one path or several."""
    return (os.fspath(value),) if isinstance(value, str | os.PathLike) else tuple(map(os.fspath, value))


def to_json(config: ConfigDict) -> dict:
    """A config as plain values, tuples as lists, with the number of its format."""
    content = json.loads(config.to_json())
    content['init'] = list(paths(content['init']))
    for section in ('data', 'evaluation'):
        content[section]['records'] = list(paths(content[section]['records']))
    return content | {'format': FORMAT}


def from_json(content, where: str | os.PathLike) -> ConfigDict:
    """The config that `to_json`, of this version or an earlier one, made `content` of.

    Args:
        where: the file that it is from, for messages.

    Raises:
        ValueError: naming `where`: it is of a later version, or no config.
    """
    if not isinstance(content, dict):
        raise ValueError(f'{where}: holds a {type(content).__name__}, not the config of a run. Take it from a copy of '
                         'the workdir.')
    content = json.loads(json.dumps(content))  # a copy
    format_ = content.pop('format', 0)
    if type(format_) is not int or not 0 <= format_ <= FORMAT:
        raise ValueError(f'{where}: format = {format_!r:.50}, this version reads up to {FORMAT}. A later version of '
                         'sgmg_jax wrote it: use that one.')
    for added in ADDED:
        if added.format > format_ and added.system in (None, _get(content, 'model.name')):
            section, _, name = added.path.rpartition('.')
            parent = _get(content, section) if section else content
            if isinstance(parent, dict) and name not in parent:
                try:
                    parent[name] = added.value(content) if callable(added.value) else added.value
                except (KeyError, TypeError) as error:
                    raise ValueError(f'{where}: is no config of a run, field {error} is missing. Take it from a copy '
                                     'of the workdir.') from error
    if format_ < 1 and content.get('accumulate') not in (None, 1):
        logging.warning('%s: accumulate = %s, and an earlier version began this run, whose loss averaged parts that '
                        'were normalised each by itself; from here on the loss is that of the whole batch.', where,
                        content['accumulate'])
    config = ConfigDict(content)
    check(config, f'{where}: config')
    return config


def _get(content, path):
    for name in path.split('.'):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def read(workdir: str | os.PathLike) -> ConfigDict:
    """The config of the run in `workdir`.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: its config.json is damaged; names it.
    """
    path = pathlib.Path(workdir) / 'config.json'
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such file, so {workdir} is not the workdir of a training run. '
                                'Give the --workdir that train.py was run with.')
    return from_json(files.read_json(path, LARGEST), path)
