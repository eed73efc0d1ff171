"""Weights in and out: from any known file to our parameters, and back to the released names."""
from collections.abc import Mapping, Sequence
import contextlib
import errno
import json
import math
import os
import pathlib
import re
import secrets
import shutil

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import save_file

from sgmg_jax import checkpoints, config, files
from sgmg_jax.convert import names, sources
from sgmg_jax.models import video_swin

LARGEST_WEIGHT = 1e18  # float32 cannot hold the square of a larger one
SUFFIXES = '', '.safetensors'  # of what `save` writes
CHECKSUMS = 'crc32.json'  # in a folder that `save` wrote: path of ours -> checksum of its bytes
POOLER = 'text_backbone/pooler/'
_WHOLE = 'query_embedding'  # a parameter that files of encoders do not have


def load(paths: str | os.PathLike | Sequence[str | os.PathLike], shapes: Mapping, skip: str = ''
         ) -> tuple[dict[str, np.ndarray], list[str]]:
    """Parameters from one file or several, each of which fills its part of the model.

    Args:
        paths: one or several .pth or .safetensors with weights of SgMg, SOC, Video Swin, Swin or RoBERTa (see
            sources.recognise), or what `save` wrote, or the --workdir of a training run. A later
            one replaces what an earlier one gave.
        shapes: the model's parameter tree (nested dicts of anything with a shape).
        skip: a regular expression; parameters of ours whose whole path matches are not loaded.

    Returns:
        path of ours -> float32 NumPy array, for the parameters found; and lines that say what came from which file.
        RoBERTa's pooler may be in none, as in Hugging Face's files of the masked-language model; a line says so.

    Raises:
        FileNotFoundError: for a path that does not exist.
        ValueError: if a file cannot be read, does not fit the model, leaves a parameter of its part unset, or has
            weights that cannot be: of another type than floating point, NaN, infinite or absurdly large.
    """
    try:
        paths = [pathlib.Path(path) for path in config.paths(paths)]
    except TypeError as error:
        raise ValueError(f'weights from {paths!r:.200}: must be a path or several.') from error
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    skipped, found, report = _skipped(skip, wanted), {}, []
    for path in paths:
        try:
            kind, part, notes = _load_one(path, shapes, skip)
            check_finite(part, path)
        except ValueError as error:
            raise ValueError(error if str(error).startswith(str(path)) else f'{path}: {error}') from error
        types = sorted({str(x.dtype) for x in part.values()} - {'float32'})
        notes = [*notes, *(f'converted from {name} to float32' for name in types)]
        found |= {name: x.astype(np.float32, copy=False) for name, x in part.items()}
        count, modules = sum(x.size for x in part.values()), sorted({name.split('/')[0] for name in part})
        report += [f'{path} ({kind}): {len(part)} arrays, {count / 1e6:.2f} M parameters of '
                   f'{", ".join(modules[:4])}{" ..." if len(modules) > 4 else ""}',
                   *(f'{path}: {note}.' for note in notes)]
    if skip and paths and not skipped:
        report.append(f'skip = {skip!r} is the whole name of no parameter, so nothing was left out.')
    pooler = {name for name in wanted if name.startswith(POOLER)} - skipped
    if any(name.startswith('text_backbone/') for name in found) and pooler - set(found):
        report.append('the pooler of the text encoder is in none of them: it starts new (and stays as it is where '
                      'config.optimizer.freeze covers it).')
    return found, report


def _skipped(skip, paths):
    """The paths that a regular expression matches as a whole."""
    try:
        return {path for path in paths if skip and re.fullmatch(skip, path)}
    except (re.error, TypeError) as error:
        raise ValueError(f'{skip!r:.200} (--skip, config.init_skip): is no regular expression ({error}).') from error


def _load_one(path, shapes, skip):
    """(kind, path of ours -> array, notes)."""
    with _stored(path) as (there, read):
        if _is_ours(there):
            there = {name: x for name, x in there.items() if name not in _skipped(skip, there)}
            _check_fit(there, shapes, skip)
            found = read()
            return 'sgmg_jax', {name: found[name] for name in there}, ()
    weights = sources.recognise(there)
    wanted = {part: shapes[part] for part in weights.parts or set(shapes) - names.OURS_ALONE}
    if weights.parts == ('text_backbone',) and not any('.pooler.' in name for name in weights.tensors):
        wanted = traverse_util.unflatten_dict(_without_pooler(traverse_util.flatten_dict(wanted, sep='/')), sep='/')
    found = names.from_official(weights.tensors, wanted, skip, weights.called)
    return weights.kind, traverse_util.flatten_dict(found, sep='/'), weights.notes


def _check_fit(there, shapes, skip):
    """That stored parameters of ours are all of some parts of the model; of encoders the pooler may be missing."""
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    parts = {name.split('/')[0] for name in there}
    wanted = {name: x for name, x in wanted.items()
              if name.split('/')[0] in parts and name not in _skipped(skip, wanted)}
    if _WHOLE not in there and not any(name.startswith(POOLER) for name in there):
        wanted = _without_pooler(wanted)
    names.check(sorted(set(there) - set(wanted)),
                [f'{name} {tuple(x.shape)} for {tuple(wanted[name].shape)}' for name, x in there.items()
                 if name in wanted and tuple(x.shape) != tuple(wanted[name].shape)],
                sorted(set(wanted) - set(there)))


def _without_pooler(parameters):
    return {name: x for name, x in parameters.items() if not name.startswith(POOLER)}


def _is_ours(tensors):
    return any('/' in name or name == _WHOLE for name in tensors)


def read_ours(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Parameters, path -> NumPy array, of what `save` wrote or of the best checkpoint of a training run's --workdir.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: naming the file, and the parameter: it is damaged, or its weights cannot be (`check_finite`).
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise _nothing_there(path)
    with _stored(path) as (there, read):
        if not _is_ours(there):
            raise ValueError(f'{path}: has no parameters by the names of sgmg_jax. `python -m sgmg_jax.convert '
                             'from-official` reads weights by the names of the releases.')
        parameters = read()
    check_finite(parameters, path)
    return parameters


@contextlib.contextmanager
def _stored(path):
    """What a file or folder stores: yields path -> anything with a shape; and a function() -> path -> array."""
    if not path.is_dir():
        tensors = sources.read(path)
        yield tensors, lambda: tensors
    elif (path / 'checkpoints').is_dir():
        with contextlib.closing(checkpoints.Checkpoints(path, read_only=True)) as saved:
            step = saved.find('best')
            shapes = saved.parameter_shapes(step)
            yield shapes, lambda: jax.tree.map(np.asarray, saved.restore_parameters(step, shapes))
    elif (path / '_METADATA').exists():
        with ocp.StandardCheckpointer() as checkpointer:
            yield _folder_shapes(checkpointer, path), lambda: _read_folder(checkpointer, path)
    else:
        raise _nothing_there(path)


def _nothing_there(path):
    inside = files.listing(path)[1] if path.is_dir() else ()
    inside = [name for name in inside if name.endswith(('.safetensors', '.bin', '.pth', '.pt', '.ckpt'))]
    hint = f'In it is {files.printable(inside[0])}: give that.' if inside else (
        'Give a .safetensors, a folder that `python -m sgmg_jax.convert` wrote, or the --workdir of a training run.')
    return FileNotFoundError(f'{path}: no weights there. {hint}')


def _folder_shapes(checkpointer, path):
    """Of an Orbax checkpoint: path of ours -> what has its shape."""
    files.check_folder(path)
    with _readable(path):
        shapes = _flat(checkpointer.metadata(path.absolute()).item_metadata.tree)
    for name, x in shapes.items():
        if not hasattr(x, 'shape'):
            raise ValueError(f'{path}: {files.printable(name)} is no array. Give a folder that '
                             '`python -m sgmg_jax.convert` wrote.')
        stored = x.storage and x.storage.chunk_shape
        if max(math.prod(x.shape), math.prod(stored or ())) > sources.LARGEST:
            raise ValueError(f'{path}: {files.printable(name)} has shape {x.shape}, stored by {stored}: more numbers '
                             'than any of these models.')
    if sum(math.prod(x.shape) for x in shapes.values()) > sources.LARGEST_FILE:
        raise ValueError(f'{path}: has more numbers than any of these models.')
    return shapes


def _read_folder(checkpointer, path):
    with _readable(path):
        parameters = jax.tree.map(np.asarray, _flat(checkpointer.restore(path.absolute())))
    sums = path / CHECKSUMS
    if sums.exists():  # Earlier versions wrote none.
        sums, found = files.read_json(sums), {name: sources.crc32(x) for name, x in parameters.items()}
        wrong = [name for name in parameters if not isinstance(sums, dict) or sums.get(name) != found[name]]
        if wrong:
            raise ValueError(f'{path}: {files.printable(wrong[0])} is damaged: its checksum is not the one in '
                             f'{CHECKSUMS}. Copy the folder again, or convert again.')
    return parameters


@contextlib.contextmanager
def _readable(path):
    """Makes one error of whatever Orbax and TensorStore raise for a damaged folder."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), '') or type(error).__name__
        raise ValueError(f'{path}: is no whole checkpoint of Orbax ({files.printable(reason)[:200]}). Copy the folder '
                         'again, or convert again.') from error


def _flat(tree):
    return {jax.tree_util.keystr(path, simple=True, separator='/'): x
            for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def check_finite(parameters: Mapping[str, np.ndarray], where: str | os.PathLike) -> None:
    """Checks that parameters (path -> array, NumPy's or JAX's) can be weights.

    Args:
        where: the file they are from, for the message.

    Raises:
        ValueError: naming `where` and the parameter: it is not of floating point, or has NaN, infinity, or a number
            beyond LARGEST_WEIGHT.
    """
    for path, x in parameters.items():
        x = np.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f'{where}: {files.printable(path)} is of type {x.dtype}, weights are floating-point '
                             'numbers. Write it again, as float32.')
        with np.errstate(invalid='ignore'):
            low, high = (float(x.min()), float(x.max())) if x.size else (0, 0)  # NaN, where there is one
        if not (-LARGEST_WEIGHT <= low and high <= LARGEST_WEIGHT):
            worst = high if low >= -LARGEST_WEIGHT else low
            raise ValueError(f'{where}: {files.printable(path)} has a weight of {worst:g}. The file was damaged, or '
                             'the training diverged. Copy it again, or take an earlier checkpoint.')


def save(parameters: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes parameters (path of ours -> array) whole or not at all, with a checksum of each: to a .safetensors, or to
    an Orbax checkpoint where `path` has no suffix.

    Raises:
        FileExistsError: if `path` is there already.
        OSError: if it cannot be written.
        ValueError: for another suffix.
    """
    path = files.check_new(pathlib.Path(path).absolute(), SUFFIXES)
    parameters = {name: np.asarray(x, order='C') for name, x in parameters.items()}
    sums = {name: sources.crc32(x) for name, x in parameters.items()}
    if path.suffix:
        sums = {sources.CHECKSUM + name: f'{value:08x}' for name, value in sums.items()}
        with files.replacing(path) as partial, _as_os_error():
            save_file(parameters, partial, sums)
    else:
        _save_folder(parameters, sums, path)


def _save_folder(parameters, sums, path):
    partial = path.with_name(f'.partial-{secrets.token_hex(8)}')
    try:
        partial.mkdir(parents=True)
        needed, free = sum(x.nbytes for x in parameters.values()), shutil.disk_usage(partial).free
        if free < needed:  # Found out while writing, it would come with the tracebacks of Orbax's writers.
            raise OSError(errno.ENOSPC, f'{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are left')
        with _as_os_error():
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(partial / 'weights', parameters)
            (partial / 'weights' / CHECKSUMS).write_text(json.dumps(sums))
            os.rename(partial / 'weights', path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f'cannot write ({error.strerror or error}). Free some space, or check '
                      'the path and its permissions', str(path)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _as_os_error():
    """Makes an OSError of what safetensors and Orbax raise where a system call failed."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = re.search(r"os error (\d+)|os_error_code='(\d+)'", str(error))
        number = int(number[1] or number[2]) if number else errno.EIO
        raise OSError(number, os.strerror(number) if number != errno.EIO else str(error)[:300]) from error


def released(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters (path of ours -> array) -> the whole state dict of the released SgMg, or SOC, with the index tables
    and position ids that its modules register as buffers, so that it loads with strict=True there.

    Raises:
        ValueError: if they are not those of a whole model, or of a model that was not released.
    """
    absent = [name for name in (_WHOLE, 'text_backbone/positions/embedding') if name not in parameters]
    if absent:
        raise ValueError(f'{absent[0]} is missing: these are not the parameters of a whole model, which alone the '
                         'releases can load.')
    tensors = names.to_official(traverse_util.unflatten_dict(parameters, sep='/'))
    index = np.ascontiguousarray(video_swin.relative_position_index(), np.int64)
    for name in list(tensors):
        if name.endswith('relative_position_bias_table'):
            tensors[name.replace('bias_table', 'index')] = index
    positions = len(tensors[sources.ROBERTA + 'embeddings.position_embeddings.weight'])
    tensors[sources.ROBERTA + 'embeddings.position_ids'] = np.arange(positions)[None]
    if any(path.startswith('object_cluster/') for path in parameters):
        tensors = {names.soc_name(name): x for name, x in tensors.items()}
    return tensors
