"""Checkpoints: the latest two and the best are kept; a killed save leaves nothing behind.

Every array is stored with a checksum, so that damage on disk raises an error instead of changing weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
import errno
import logging as python_logging
import os
import pathlib
import shutil
from typing import Any, Protocol, TypeVar, no_type_check, runtime_checkable

from absl import logging
import jax
import orbax.checkpoint as ocp
import tokenizers

from sgmg_jax import checksums, files, hosts

METRIC = 'score'  # of the validation: J&F or mAP
HANDLERS = {
    'parameters': ocp.StandardCheckpointHandler,
    'training': ocp.StandardCheckpointHandler,
    'config': ocp.JsonCheckpointHandler,
    'checksums': ocp.JsonCheckpointHandler,
}
NOISE = (
    'directory is read only',
    'read_only=True, setting',  # for a folder that is opened read-only
    'Requested `tracked_metric`',
)  # for a checkpoint without a validation score


@runtime_checkable
class State(Protocol):
    """The fields of training.step.TrainState, which this part of the package does not import."""

    @property
    def step(self) -> Any: ...

    @property
    def trainable(self) -> dict: ...

    @property
    def frozen(self) -> dict: ...

    @property
    def average(self) -> dict: ...

    @property
    def optimizer_state(self) -> Any: ...

    def parameters(self) -> dict: ...


S = TypeVar('S', bound=State)


def _is_wanted(record: python_logging.LogRecord) -> bool:
    """Filters Orbax's log: drops messages about each part of a save, and alarming ones without a cause (NOISE)."""
    return 'orbax' not in record.pathname or (
        record.levelno >= python_logging.WARNING and not any(words in str(record.msg) for words in NOISE)
    )


class _Manager(ocp.CheckpointManager):
    """Disables Orbax's own preemption check: sync points are counted by training.loop, and Orbax's calls (also from its
    writer thread) would put the counter out of step."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """Checkpoints in <workdir>/checkpoints, one folder per step. They are written in the background, in parts by all
    processes.

    A checkpoint has four items: 'parameters', a flat dict path -> array, all that inference needs; 'training': the
    step, the optimizer state and, if 'parameters' is a moving average, the trained parameters; 'config' of the run;
    'checksums' of every array and of the config.
    """

    def __init__(self, workdir: str | os.PathLike, read_only: bool = False) -> None:
        """read_only: for reading next to a run that may be writing; creates and deletes nothing.

        Raises:
            ValueError: if the folder contains anything but files and folders, such as a pipe: reading it might hang.
        """
        logging.get_absl_logger().addFilter(_is_wanted)  # Adding it twice has no effect.
        self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
        files.check_folder(self.folder)
        policies = ocp.checkpoint_managers
        score: Callable[[Any], float] = lambda metrics: metrics[METRIC]
        keep = policies.AnyPreservationPolicy(
            [policies.LatestN(2), policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)]
        )
        self._manager = _Manager(
            self.folder,
            item_handlers={item: handler() for item, handler in HANDLERS.items()},
            options=ocp.CheckpointManagerOptions(
                best_fn=score,
                best_mode='max',
                preservation_policy=keep,
                read_only=read_only,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            ),
        )

    def latest_step(self) -> int | None:
        """None before the first checkpoint."""
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        """All steps with a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the highest validation score; None if none has a score."""
        return self._manager.best_step()

    @no_type_check  # checks its own arguments
    def find(self, checkpoint: str | int = 'best') -> int:
        """The step of a checkpoint.

        Args:
            checkpoint: 'best' by validation score, or the latest if none has a score; 'latest'; or a step, as a number
                or in digits.

        Raises:
            FileNotFoundError: there is no such checkpoint; lists what is there.
        """
        known = self.all_steps()
        best, latest = self.best_step(), self.latest_step()
        if checkpoint == 'best' and best is None and known:
            logging.info(
                '%s: no checkpoint has a validation score yet; using the latest, step %d.', self.folder, latest
            )
        found = {'best': latest if best is None else best, 'latest': latest} | {str(step): step for step in known}
        step = None if isinstance(checkpoint, bool) else found.get(str(checkpoint))
        if step is None:
            raise FileNotFoundError(
                f'{self.folder}: no checkpoint {checkpoint!r}; there are steps {known}, the best '
                f'by validation score is {best}, the latest is {latest}.'
            )
        return step

    def score(self, step: int) -> float | None:
        """The score that `save` was given for that step."""
        metrics: Any = self._manager.metrics(step)
        return metrics and metrics[METRIC]

    def discard(self, step: int) -> None:
        """Deletes the checkpoint of that step if there is one, so that it can be saved again."""
        if step in self.all_steps():
            self._manager.delete(step)

    def save(self, state: State, config: dict, tokenizer: tokenizers.Tokenizer, score: float | None = None) -> None:
        """Starts to save.

        Args:
            state: training.step.TrainState.
            config: from config.to_json.
            tokenizer: the one that the parameters belong to; its checksum is saved.
            score: J&F or mAP of its validation, if any.

        Raises:
            OSError: if the disk is full for this save or the last one; names the folder and the last whole checkpoint.
        """
        step = int(state.step)
        items = {'parameters': state.parameters(), 'training': _training(state)}
        self.wait()
        needed, free = sum(x.nbytes for x in jax.tree.leaves(items)), shutil.disk_usage(self.folder).free
        # Orbax's writers would report a full disk with a thousand lines of errors.
        if hosts.anywhere(free < needed):
            raise self._disk_full(f'needs {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free')
        sums = checksums.of_arrays(_flat(items)) | {
            'config': checksums.of_json(config),
            'tokenizer': checksums.of_json(tokenizer.to_str()),
        }
        items = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._guard(
            lambda: self._manager.save(
                step,
                args=ocp.args.Composite(**items, config=ocp.args.JsonSave(config), checksums=ocp.args.JsonSave(sums)),
                metrics=None if score is None else {METRIC: score},
                force=True,
            )
        )

    def wait(self) -> None:
        """Waits until started saves are on disk. Raises as `save` does."""
        self._guard(self._manager.wait_until_finished)

    def restore(self, step: int, abstract: S) -> S:
        """Reads the TrainState of `step`.

        Args:
            abstract: a TrainState of ShapeDtypeStructs with shardings, on any number of devices, which the result gets.

        Raises:
            ValueError: if the checkpoint is damaged or of another model; names the differences.
        """
        parameters = self.restore_parameters(step, abstract.parameters())
        training = self._read(step, training=ocp.args.StandardRestore(_training(abstract)))['training']
        self._verify(step, {'training': training})
        trainable = training.get('trainable', parameters)
        return dataclasses.replace(  # type: ignore[type-var]  # A TrainState is a dataclass.
            abstract,
            step=training['step'],
            optimizer_state=training['optimizer_state'],
            trainable={path: trainable[path] for path in abstract.trainable},
            average={path: parameters[path] for path in abstract.average},
            frozen={path: parameters[path] for path in abstract.frozen},
        )

    def restore_config(self, step: int) -> dict:
        """The config that `save` was given.

        Raises:
            ValueError: if the checkpoint has no config, or is damaged.
        """
        config = self._read_json(step, 'config')
        if config is None:
            raise ValueError(
                f'{self.folder / str(step)}: holds no config, because an older version wrote it. Evaluate '
                'it, or use it as the --config.init of a run in another --workdir.'
            )
        sums = self._read_json(step, 'checksums')
        if sums is not None and sums.get('config') != checksums.of_json(config):
            raise self._damaged(step, 'its config differs from what was written')
        return config

    def check_tokenizer(self, step: int, tokenizer: tokenizers.Tokenizer) -> None:
        """Raises ValueError if `step` was saved with another tokenizer."""
        known = (self._read_json(step, 'checksums') or {}).get('tokenizer')
        if known not in (None, checksums.of_json(tokenizer.to_str())):
            raise ValueError(
                f'{self.folder.parent / "tokenizer.json"}: is not the tokenizer that the checkpoint of '
                f'step {step} was trained with. Restore the file that training wrote.'
            )

    def restore_parameters(self, step: int, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Only the parameters, path -> array; on a device of this process if `abstract` has no sharding.
        Raises as `restore` does."""
        self._check(step, abstract)
        parameters = self._read(step, parameters=ocp.args.StandardRestore(_on_a_device(abstract)))['parameters']
        self._verify(step, {'parameters': parameters})
        return parameters

    def parameter_shapes(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of all parameters of that step, as `restore_parameters` takes them."""
        return self._shapes(step, 'parameters')

    def read(self, step: int) -> dict[str, jax.Array]:
        """All arrays of a checkpoint of any run: path -> array."""
        trees = self._read(
            step,
            **{
                item: ocp.args.StandardRestore(_on_a_device(self._shapes(step, item)))
                for item in ('parameters', 'training')
            },
        )
        self._verify(step, trees)
        return _flat(trees)

    def _shapes(self, step: int, item: str) -> Any:
        try:
            metadata: Any = self._manager.item_metadata(step)
            tree = metadata[item].tree
        except Exception as error:  # Orbax may raise anything for a damaged file.
            raise self._damaged(step, f'its list of {item} cannot be read') from error
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

    def _read(self, step: int, **items: Any) -> dict[str, Any]:
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(**items)).items())
        except Exception as error:  # Orbax and TensorStore may raise anything.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise self._damaged(step, f'{" and ".join(items)} cannot be read: {reason:.200}') from error

    def _read_json(self, step: int, item: str) -> dict | None:
        """None if the checkpoint lacks the item, as those of older versions do."""
        if not (self.folder / str(step) / item).exists():
            return None
        found = self._read(step, **{item: ocp.args.JsonRestore()})[item]
        if not isinstance(found, dict):
            raise self._damaged(step, f'its {item} is not a JSON object')
        return found

    def _verify(self, step: int, trees: Any) -> None:
        """Compares arrays with their stored checksums; older versions wrote none."""
        expected = self._read_json(step, 'checksums')
        if expected is None:
            logging.info(
                '%s: an older version wrote this checkpoint without checksums; damage cannot be detected.',
                self.folder / str(step),
            )
            return
        differing = [path for path, value in checksums.of_arrays(_flat(trees)).items() if expected.get(path) != value]
        if differing:
            raise self._damaged(step, f'{len(differing)} arrays differ from what was written, first {differing[0]}')

    def _damaged(self, step: int, reason: str) -> ValueError:
        others = [other for other in self.all_steps() if other != step]
        return ValueError(
            f'{self.folder / str(step)}: this checkpoint is damaged ({reason}). '
            + (
                f'Evaluate another one, --checkpoint={others[-1]}, or remove this folder: training then resumes from '
                f'step {others[-1]}.'
                if others
                else 'Restore it from a copy, or train again in another --workdir.'
            )
        )

    def close(self) -> None:
        """Waits for started saves. Raises as `save` does."""
        self._guard(self._manager.close)

    def _check(self, step: int, abstract: Mapping[str, Any]) -> None:
        stored = self._shapes(step, 'parameters')
        problems = [
            f'{path}: {tuple(stored[path].shape)} in the checkpoint, {tuple(x.shape)} in the model'
            for path, x in abstract.items()
            if path in stored and stored[path].shape != x.shape
        ]
        problems += [f'{path}: only in the model' for path in abstract if path not in stored]
        problems += [f'{path}: only in the checkpoint' for path in stored if path not in abstract]
        if problems:
            raise ValueError(
                f'{self.folder / str(step)}: this checkpoint is of another model than config.model describes '
                f'({len(problems)} parameters differ). The first ones:\n  '
                + '\n  '.join(problems[:5])
                + '\nGive the config it was trained with, such as another config.model.backbone.'
            )

    def _guard(self, save: Callable[[], object]) -> None:
        try:
            save()
        except Exception as error:  # Orbax wraps its writers' exceptions.
            if not _is_disk_full(error):
                raise
            raise self._disk_full('the disk filled up while writing') from error

    def _disk_full(self, reason: str) -> OSError:
        self._manager.reload()  # Orbax counts a checkpoint as soon as it is started.
        for partial in self.folder.glob('*.orbax-checkpoint-tmp'):
            shutil.rmtree(partial, ignore_errors=True)
        return OSError(
            errno.ENOSPC,
            f'no space left for a checkpoint ({reason}); the last whole one is step '
            f'{self.latest_step()}. Free some space and start again: training resumes from there',
            str(self.folder),
        )


def _flat(trees: Any) -> dict[str, Any]:
    """Nested containers of arrays -> path -> array."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): x
        for path, x in jax.tree_util.tree_leaves_with_path(trees)
    }


def _training(state: State) -> dict[str, Any]:
    """The parts of a TrainState that evaluation does not need."""
    tree = {'step': state.step, 'optimizer_state': state.optimizer_state}
    return tree | {'trainable': state.trainable} if state.average else tree


def _on_a_device(abstract: Any) -> Any:
    """Adds a sharding to ShapeDtypeStructs without one; Orbax would need the devices that they were saved from."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), abstract)


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, 'errno', None) == errno.ENOSPC or 'No space left' in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
