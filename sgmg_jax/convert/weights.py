"""Weights in and out: from any known file to our parameters, and back to the released names."""
import contextlib
import pathlib
import re

from flax import traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from sgmg_jax import checkpoints, files
from sgmg_jax.convert import names, sources
from sgmg_jax.models import video_swin


def load(paths, shapes, skip=''):
    """Parameters from one file or several, each of which fills its part of the model.

    Args:
        paths: .pth or .safetensors with weights of SgMg, SOC, Video Swin, Swin or RoBERTa (see
            sources.recognise), or what `save` wrote, or the --workdir of a training run. A later
            one replaces what an earlier one gave.
        shapes: the model's parameter tree (nested dicts of anything with a shape).
        skip: a regular expression; parameters of ours whose whole path matches are not loaded.

    Returns:
        path of ours -> NumPy array, for the parameters found; and a line for every file, saying what came from it.

    Raises:
        FileNotFoundError: for a path that does not exist.
        ValueError: if a file does not fit the model, or leaves a parameter of its part unset.
    """
    found, report = {}, []
    for path in paths:
        try:
            kind, part = _load_one(pathlib.Path(path), shapes, skip)
        except ValueError as error:
            raise ValueError(error if str(error).startswith(str(path)) else f'{path}: {error}') from error
        found.update(part)
        count, modules = sum(x.size for x in part.values()), sorted({name.split('/')[0] for name in part})
        report.append(f'{path} ({kind}): {len(part)} arrays, {count / 1e6:.2f} M parameters of '
                      f'{", ".join(modules[:4])}{" ..." if len(modules) > 4 else ""}')
    return found, report


def _load_one(path, shapes, skip):
    """(kind, path of ours -> array)."""
    if path.is_dir() or _is_ours(path):
        found, wanted = ({name: x for name, x in tree.items() if not (skip and re.fullmatch(skip, name))}
                         for tree in (read_ours(path), traverse_util.flatten_dict(shapes, sep='/')))
        parts = {name.split('/')[0] for name in found}
        wanted = {name: x for name, x in wanted.items() if name.split('/')[0] in parts}
        names.check(sorted(set(found) - set(wanted)),
                   [f'{name} {found[name].shape} for {tuple(wanted[name].shape)}' for name in found
                    if name in wanted and found[name].shape != tuple(wanted[name].shape)],
                   sorted(set(wanted) - set(found)))
        return 'sgmg_jax', found
    weights = sources.read(path)
    wanted = {part: shapes[part] for part in weights.parts or set(shapes) - names.OURS_ALONE}
    return weights.kind, traverse_util.flatten_dict(names.from_official(weights.tensors, wanted, skip), sep='/')


def _is_ours(path):
    if path.suffix != '.safetensors' or not path.is_file():
        return False
    try:
        with safe_open(path, 'numpy') as file:
            return any('/' in name or name == 'query_embedding' for name in file.keys())
    except SafetensorError:
        return False  # sources.read says what is wrong with it


def read_ours(path):
    """Parameters, path -> NumPy array, of what `save` wrote or of the best checkpoint of a training run's --workdir.

    Raises:
        FileNotFoundError: if there is neither.
    """
    path = pathlib.Path(path).absolute()
    if path.is_file():
        return load_file(path)
    if (path / 'checkpoints').is_dir():
        with contextlib.closing(checkpoints.Checkpoints(path, read_only=True)) as saved:
            step = saved.latest_step() if saved.best_step() is None else saved.best_step()
            if step is None:
                raise FileNotFoundError(f'{path / "checkpoints"}: no checkpoint there. Train first.')
            return jax.tree.map(np.asarray, saved.restore_parameters(step, saved.parameter_shapes(step)))
    if not (path / '_METADATA').exists():
        raise FileNotFoundError(f'{path}: no weights there. Give a .safetensors, a folder that '
                                '`python -m sgmg_jax.convert` wrote, or the --workdir of a training run.')
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(path))


def save(parameters, path):
    """Writes parameters (path of ours -> array) whole or not at all: to a .safetensors, or to an Orbax checkpoint
    where `path` has no suffix.

    Raises:
        FileExistsError: if `path` is there already.
        ValueError: for another suffix.
    """
    path = pathlib.Path(path).absolute()
    if path.exists():
        raise FileExistsError(f'{path}: exists already. Remove it or give another --out.')
    if path.suffix == '.safetensors':
        with files.replacing(path) as partial:
            save_file({name: np.ascontiguousarray(x) for name, x in parameters.items()}, partial)
    elif path.suffix:
        raise ValueError(f'{path}: ends in {path.suffix}. Give a .safetensors, or no suffix for an Orbax checkpoint.')
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, parameters)


def released(parameters):
    """Parameters (path of ours -> array) -> the whole state dict of the released SgMg, or SOC, with the index tables
    and position ids that its modules register as buffers, so that it loads with strict=True there."""
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


def check_finite(parameters, where):
    """Raises ValueError, naming `where` and the first, if a parameter (path -> array) is not finite."""
    broken = [path for path, x in parameters.items() if not np.isfinite(np.asarray(x)).all()]
    if broken:
        raise ValueError(f'{where}: {len(broken)} parameters are not finite, first {min(broken)}. The file is damaged, '
                         'or was written by a run that had diverged: take another checkpoint, or copy it again.')
