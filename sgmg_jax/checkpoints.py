"""Checkpoints: the latest two and the best are kept, a killed save is as if it had not been begun.

Every array is stored with a checksum, so that damage on a disk is an error and never other weights.
"""
from collections.abc import Mapping
import errno
import json
import pathlib
import shutil
import zlib

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from sgmg_jax import files, hosts

METRIC = 'score'  # the validation's: J&F or mAP
ODD = 2654435761, 2246822519, 3266489917, 668265263, 374761393  # large primes, which spread neighbours
HANDLERS = {'parameters': ocp.StandardCheckpointHandler, 'training': ocp.StandardCheckpointHandler,
            'config': ocp.JsonCheckpointHandler, 'checksums': ocp.JsonCheckpointHandler}


NOISE = ('directory is read only', 'read_only=True, setting',  # of a folder that is opened to be read
         'Requested `tracked_metric`')  # of a checkpoint between two validations


def _is_wanted(record):
    """Not what Orbax says of every step of every save, nor what frightens for nothing; its other warnings are."""
    return 'orbax' not in record.pathname or (record.levelno >= logging.converter.STANDARD_WARNING
                                              and not any(words in str(record.msg) for words in NOISE))


class _Manager(ocp.CheckpointManager):
    """Never asks whether all processes are to stop. That counts by the number each asks with, which is training.loop's;
    Orbax would ask with steps, also from the thread that writes, when the loop is far beyond them."""

    def reached_preemption(self, step):
        return False


class Checkpoints:
    """Checkpoints in <workdir>/checkpoints, one folder a step, written in the background, each process its part.

    Four items each: 'parameters', a flat dict path -> array, all that inference needs; 'training', the step, the
    optimizer's state and, where the parameters are a moving average, those that are trained; 'config', the run's;
    'checksums', of every array and of the config.
    """

    def __init__(self, workdir, read_only=False):
        """read_only: to read beside a run that may be writing; nothing is made or tidied up.

        Raises ValueError where something lies in there that is no file, such as a pipe: to read it might never end.
        """
        logging.get_absl_logger().addFilter(_is_wanted)  # Once more does nothing.
        self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
        files.check_folder(self.folder)
        policies = ocp.checkpoint_managers
        score = lambda metrics: metrics[METRIC]
        keep = policies.AnyPreservationPolicy([
            policies.LatestN(2),
            policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)])
        self._manager = _Manager(
            self.folder, item_handlers={item: handler() for item, handler in HANDLERS.items()},
            options=ocp.CheckpointManagerOptions(
                best_fn=score, best_mode='max', preservation_policy=keep, read_only=read_only,
                create=not read_only, cleanup_tmp_directories=not read_only))

    def latest_step(self):
        """None before the first checkpoint."""
        return self._manager.latest_step()

    def all_steps(self):
        return sorted(self._manager.all_steps())

    def best_step(self):
        """The step of the highest validation score; None if none was scored."""
        return self._manager.best_step()

    def find(self, checkpoint='best'):
        """The step of a checkpoint.

        Args:
            checkpoint: 'best' by validation score, or the latest where none has a score yet; 'latest'; or a step, as a
                number or in digits.

        Raises:
            FileNotFoundError: there is none; lists what is there.
        """
        known = self.all_steps()
        best, latest = self.best_step(), self.latest_step()
        if checkpoint == 'best' and best is None and known:
            logging.info('%s: no checkpoint has a validation score yet, so the latest is taken, that of step %d.',
                         self.folder, latest)
        found = {'best': latest if best is None else best, 'latest': latest} | {str(step): step for step in known}
        step = None if isinstance(checkpoint, bool) else found.get(str(checkpoint))
        if step is None:
            raise FileNotFoundError(f'{self.folder}: no checkpoint {checkpoint!r}; there are steps {known}, the best '
                                    f'by validation score is {best}, the latest {latest}.')
        return step

    def score(self, step):
        """What `save` was given with that step."""
        metrics = self._manager.metrics(step)
        return metrics and metrics[METRIC]

    def discard(self, step):
        """Makes room for another checkpoint of that step, if there is one."""
        if step in self.all_steps():
            self._manager.delete(step)

    def save(self, state, config, tokenizer, score=None):
        """Begins to save.

        Args:
            state: training.step.TrainState.
            config: of config.to_json.
            tokenizer: that the parameters belong to; its checksum is saved.
            score: its validation's J&F or mAP, if it was measured.

        Raises:
            OSError: when this save or the one before it found no space; names the folder and what is whole.
        """
        step = int(state.step)
        items = {'parameters': state.parameters(), 'training': _training(state)}
        self.wait()
        needed, free = sum(x.nbytes for x in jax.tree.leaves(items)), shutil.disk_usage(self.folder).free
        # Found out while writing, it would come with a thousand lines of its writers' own errors.
        if hosts.anywhere(free < needed):
            raise self._disk_full(f'{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are left')
        sums = checksums(_flat(items)) | {
            'config': _checksum_of_json(config), 'tokenizer': _checksum_of_json(tokenizer.to_str())}
        items = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._guard(lambda: self._manager.save(
            step, args=ocp.args.Composite(**items, config=ocp.args.JsonSave(config), checksums=ocp.args.JsonSave(sums)),
            metrics=None if score is None else {METRIC: score}, force=True))

    def wait(self):
        """Until what was begun is on disk. Raises as `save` does."""
        self._guard(self._manager.wait_until_finished)

    def restore(self, step, abstract):
        """Reads the TrainState of `step`, laid out like `abstract`, a TrainState of ShapeDtypeStructs
        with shardings on any number of devices.

        Raises:
            ValueError: if the checkpoint is of another model, which names the differences, or damaged.
        """
        parameters = self.restore_parameters(step, abstract.parameters())
        training = self._read(step, training=ocp.args.StandardRestore(_training(abstract)))['training']
        self._verify(step, {'training': training})
        trainable = training.get('trainable', parameters)
        return abstract.replace(
            step=training['step'], optimizer_state=training['optimizer_state'],
            trainable={path: trainable[path] for path in abstract.trainable},
            average={path: parameters[path] for path in abstract.average},
            frozen={path: parameters[path] for path in abstract.frozen})

    def restore_config(self, step):
        """The config that `save` was given.

        Raises:
            ValueError: if the checkpoint has none, or is damaged.
        """
        config = self._read_json(step, 'config')
        if config is None:
            raise ValueError(f'{self.folder / str(step)}: holds no config, so an older version has written it. It can '
                             'be evaluated, or be the --config.init of a run in another --workdir.')
        sums = self._read_json(step, 'checksums')
        if sums is not None and sums.get('config') != _checksum_of_json(config):
            raise self._damaged(step, 'its config is not what was written')
        return config

    def check_tokenizer(self, step, tokenizer):
        """Raises ValueError if `step` was saved with another one."""
        known = (self._read_json(step, 'checksums') or {}).get('tokenizer')
        if known not in (None, _checksum_of_json(tokenizer.to_str())):
            raise ValueError(f'{self.folder.parent / "tokenizer.json"}: is not the tokenizer that the checkpoint of '
                             f'step {step} was trained with. Put back the one that training wrote there.')

    def restore_parameters(self, step, abstract):
        """Only the parameters: path -> array; on a device of this process where `abstract` names no sharding.
        Raises as `restore` does."""
        self._check(step, abstract)
        parameters = self._read(step, parameters=ocp.args.StandardRestore(_on_a_device(abstract)))['parameters']
        self._verify(step, {'parameters': parameters})
        return parameters

    def parameter_shapes(self, step):
        """What `restore_parameters` of that step takes: path -> ShapeDtypeStruct."""
        return self._shapes(step, 'parameters')

    def read(self, step):
        """All arrays of a checkpoint, of whatever run: path -> array."""
        trees = self._read(step, **{item: ocp.args.StandardRestore(_on_a_device(self._shapes(step, item)))
                                    for item in ('parameters', 'training')})
        self._verify(step, trees)
        return _flat(trees)

    def _shapes(self, step, item):
        try:
            tree = self._manager.item_metadata(step)[item].tree
        except Exception as error:  # Orbax raises whatever a damaged file leads to.
            raise self._damaged(step, f'its list of {item} cannot be read') from error
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

    def _read(self, step, **items):
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(**items)).items())
        except Exception as error:  # as above, and TensorStore's
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise self._damaged(step, f'{" and ".join(items)} cannot be read: {reason:.200}') from error

    def _read_json(self, step, item):
        """None where an older version has left it out."""
        if not (self.folder / str(step) / item).exists():
            return None
        found = self._read(step, **{item: ocp.args.JsonRestore()})[item]
        if not isinstance(found, dict):
            raise self._damaged(step, f'its {item} is no JSON object')
        return found

    def _verify(self, step, trees):
        """Compares arrays with the checksums that were written beside them; an older version wrote none."""
        expected = self._read_json(step, 'checksums')
        if expected is None:
            logging.info('%s: an older version has written it, without checksums; damage would not be noticed.',
                         self.folder / str(step))
            return
        differing = [path for path, value in checksums(_flat(trees)).items() if expected.get(path) != value]
        if differing:
            raise self._damaged(step, f'{len(differing)} arrays are not what was written, first {differing[0]}')

    def _damaged(self, step, reason):
        others = [other for other in self.all_steps() if other != step]
        return ValueError(
            f'{self.folder / str(step)}: this checkpoint is damaged ({reason}). '
            + (f'Evaluate another one, --checkpoint={others[-1]}, or remove this folder: training then goes on from '
               f'step {others[-1]}.' if others else 'Take it from a copy, or train again in another --workdir.'))

    def close(self):
        """Waits for what was begun. Raises as `save` does."""
        self._guard(self._manager.close)

    def _check(self, step, abstract):
        stored = self._shapes(step, 'parameters')
        problems = [f'{path}: {tuple(stored[path].shape)} in the checkpoint, {tuple(x.shape)} in the model'
                    for path, x in abstract.items() if path in stored and stored[path].shape != x.shape]
        problems += [f'{path}: only in the model' for path in abstract if path not in stored]
        problems += [f'{path}: only in the checkpoint' for path in stored if path not in abstract]
        if problems:
            raise ValueError(
                f'{self.folder / str(step)}: this checkpoint is of another model than config.model describes '
                f'({len(problems)} parameters differ). First of them:\n  ' + '\n  '.join(problems[:5])
                + '\nGive the config it was trained with, such as another config.model.backbone.')

    def _guard(self, save):
        try:
            save()
        except Exception as error:  # Orbax wraps what its writers raise.
            if not _is_disk_full(error):
                raise
            raise self._disk_full('the disk filled up while writing') from error

    def _disk_full(self, reason):
        self._manager.reload()  # it counts a checkpoint from the moment it is begun
        for partial in self.folder.glob('*.orbax-checkpoint-tmp'):
            shutil.rmtree(partial, ignore_errors=True)
        return OSError(
            errno.ENOSPC, f'no space left for a checkpoint ({reason}); the last whole one is that of step '
            f'{self.latest_step()}. Free some space and start again: training resumes from there', str(self.folder))


def checksums(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """A checksum of the bits of each array: the same however it lies on devices and processes.

    It is the sum, modulo 2 ** 32, of the numbers' bits times odd weights that follow from their places: one flipped bit
    always changes it, and every process can add up the part that it holds. All processes must call it with arrays of
    the same names.
    """
    found = {path: _sum_of_bits(x) for path, x in arrays.items()}
    shared = [path for path, x in arrays.items() if not getattr(x, 'is_fully_addressable', True)]
    if shared:
        every = multihost_utils.process_allgather(np.array([found[path] for path in shared], np.uint32))
        found |= dict(zip(shared, every.sum(0, dtype=np.uint32).tolist()))
    return found


def _sum_of_bits(x) -> int:
    """Of the parts of an array that this process holds, each once."""
    if getattr(x, 'is_fully_addressable', True):
        parts = [(np.asarray(x), (slice(None),) * np.ndim(x))]
    else:
        parts = [(np.asarray(shard.data), shard.index) for shard in x.addressable_shards if shard.replica_id == 0]
    total = np.zeros((), np.uint32)
    for data, index in parts:
        bits = np.ascontiguousarray(data).view(f'u{data.itemsize}').reshape(data.shape).astype(np.uint32)
        for axis in reversed(range(data.ndim)):  # A product of odd numbers is odd.
            places = np.arange(*index[axis].indices(x.shape[axis]), dtype=np.uint32)
            bits = bits @ (places * np.uint32(ODD[axis % len(ODD)]) | np.uint32(1))
        total += bits
    return int(total)


def _checksum_of_json(content) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _flat(trees):
    """Nested containers of arrays -> path -> array."""
    return {jax.tree_util.keystr(path, simple=True, separator='/'): x
            for path, x in jax.tree_util.tree_leaves_with_path(trees)}


def _training(state):
    """What a TrainState holds beyond the parameters to evaluate with."""
    tree = {'step': state.step, 'optimizer_state': state.optimizer_state}
    return tree | {'trainable': state.trainable} if state.average else tree


def _on_a_device(abstract):
    """ShapeDtypeStructs with a sharding where they have none, or Orbax asks for the devices they were saved from."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), abstract)


def _is_disk_full(error):
    while error is not None:
        if getattr(error, 'errno', None) == errno.ENOSPC or 'No space left' in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
