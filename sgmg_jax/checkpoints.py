"""Checkpoints: the latest two and the best are kept, a killed save is as if it had not been begun."""
import errno
import pathlib
import shutil

from absl import logging
import jax
import orbax.checkpoint as ocp

from sgmg_jax import hosts

METRIC = 'score'  # the validation's: J&F or mAP
HANDLERS = {'parameters': ocp.StandardCheckpointHandler, 'training': ocp.StandardCheckpointHandler,
            'config': ocp.JsonCheckpointHandler}


def quiet():
    """Keeps Orbax's account of every step of every save out of the log; its warnings come through, but for the one
    that a folder opened to be read is read-only."""
    def wanted(record):
        return 'orbax' not in record.pathname or (
            record.levelno >= logging.converter.STANDARD_WARNING and 'directory is read only' not in str(record.msg))

    logging.get_absl_handler().addFilter(wanted)


class _Manager(ocp.CheckpointManager):
    """Never asks whether all processes are to stop. That counts by the number each asks with, which is training.loop's;
    Orbax would ask with steps, also from the thread that writes, when the loop is far beyond them."""

    def reached_preemption(self, step):
        return False


class Checkpoints:
    """Checkpoints in <workdir>/checkpoints, one folder a step, written in the background, each process its part.

    Three items each: 'parameters', a flat dict path -> array, all that inference needs; 'training', the step, the
    optimizer's state and, where the parameters are a moving average, those that are trained; 'config', the run's.
    """

    def __init__(self, workdir, read_only=False):
        """read_only: to read beside a run that may be writing; nothing is made or tidied up."""
        self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
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

    def score(self, step):
        """What `save` was given with that step."""
        metrics = self._manager.metrics(step)
        return metrics and metrics[METRIC]

    def discard(self, step):
        """Makes room for another checkpoint of that step, if there is one."""
        if step in self.all_steps():
            self._manager.delete(step)

    def save(self, state, config, score=None):
        """Begins to save.

        Args:
            state: training.step.TrainState.
            config: a dict that JSON can hold.
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
        items = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._guard(lambda: self._manager.save(
            step, args=ocp.args.Composite(**items, config=ocp.args.JsonSave(config)),
            metrics=None if score is None else {METRIC: score}, force=True))

    def wait(self):
        """Until what was begun is on disk. Raises as `save` does."""
        self._guard(self._manager.wait_until_finished)

    def restore(self, step, abstract):
        """Reads the TrainState of `step`, laid out like `abstract`, a TrainState of ShapeDtypeStructs
        with shardings on any number of devices.

        Raises:
            ValueError: if the checkpoint is of another model; names the differences.
        """
        parameters = self.restore_parameters(step, abstract.parameters())
        training = self._manager.restore(step, args=ocp.args.Composite(
            training=ocp.args.StandardRestore(_training(abstract))))['training']
        trainable = training.get('trainable', parameters)
        return abstract.replace(
            step=training['step'], optimizer_state=training['optimizer_state'],
            trainable={path: trainable[path] for path in abstract.trainable},
            average={path: parameters[path] for path in abstract.average},
            frozen={path: parameters[path] for path in abstract.frozen})

    def restore_config(self, step):
        """The config that `save` was given.

        Raises:
            ValueError: if the checkpoint has none.
        """
        try:
            return self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))['config']
        except KeyError as error:
            raise ValueError(f'{self.folder / str(step)}: holds no config, so an older version has written it. It can '
                             'be evaluated, or be the --config.init of a run in another --workdir.') from error

    def restore_parameters(self, step, abstract):
        """Only the parameters: path -> array; on a device of this process where `abstract` names no sharding.
        Raises as `restore` does."""
        self._check(step, abstract)
        return self._manager.restore(step, args=ocp.args.Composite(
            parameters=ocp.args.StandardRestore(_on_a_device(abstract))))['parameters']

    def parameter_shapes(self, step):
        """What `restore_parameters` of that step takes: path -> ShapeDtypeStruct."""
        return self._shapes(step, 'parameters')

    def read(self, step):
        """All arrays of a checkpoint, of whatever run: path -> array."""
        items = ('parameters', 'training')
        trees = self._manager.restore(step, args=ocp.args.Composite(
            **{item: ocp.args.StandardRestore(_on_a_device(self._shapes(step, item))) for item in items}))
        return {jax.tree_util.keystr(path, simple=True, separator='/'): x for item in items
                for path, x in jax.tree_util.tree_leaves_with_path({item: trees[item]})}

    def _shapes(self, step, item):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
                            self._manager.item_metadata(step)[item].tree)

    def close(self):
        """Waits for what was begun. Raises as `save` does."""
        self._guard(self._manager.close)

    def _check(self, step, abstract):
        stored = self._manager.item_metadata(step)['parameters'].tree
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
