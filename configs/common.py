"""The fields of every experiment, with the values of the released SgMg; each experiment overrides some."""

from collections.abc import Sequence

from ml_collections import ConfigDict, config_dict

MODES = 'full', 'base', 'smoke'


def _paths(*default: str) -> config_dict.FieldReference:
    """A field that takes one path or a tuple of paths."""
    return config_dict.FieldReference(default, field_type=object)


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 0  # set exactly one of steps
    config.epochs = 0.0  # ... and epochs, passes through the training clips
    config.log_every = 50
    config.eval_every = 5000
    config.checkpoint_every = 1000
    # Weights to start from: one path, or one for each part of the model. A path is a .pth or .safetensors of SgMg, SOC,
    # Video Swin, Swin or RoBERTa, the output of `python -m sgmg_jax.convert`, or the --workdir of another run. See
    # convert/weights.py.
    config.init = _paths()
    config.init_skip = ''  # a regular expression: parameters not to load, e.g. 'class_heads_.*' for finetuning
    config.storage_shards = 1  # devices that share one copy of parameters, optimizer and average between steps
    config.accumulate = 1  # gradient accumulation: process the batch in this many parts
    config.ema_decay = 0.0  # decay of a moving average of the parameters, which is then evaluated; 0: no average
    config.stop_after_skipped = 20  # consecutive steps without a finite gradient; checked with every line of the log

    config.loss = ConfigDict()  # options of the loss of config.model.name, see losses/soc.py
    config.model = ConfigDict(
        dict(
            name='sgmg',  # systems.py: SYSTEMS
            backbone='tiny',  # models/video_swin.py: SIZES
            text_encoder='base',  # models/roberta.py: SIZES
            hidden=256,
            queries=5,
            levels=4,
            heads=8,
            points=4,
            encoder_layers=4,
            decoder_layers=4,
            mlp=2048,
            box_refinement=True,
            relative_coordinates=True,
            fusion='spectrum',  # these four switch the paper's ideas, see models/sgmg.py
            labels=16,
            optimizer=True,
            feature_decoder=False,
            dropout=0.1,
            text_dropout=0.1,
            drop_path=0.2,
            remat='hidden',
            dtype='float32',
        )
    )
    config.data = ConfigDict(
        dict(
            records=_paths('data/tfds/ref_youtube_vos'),  # built data sets, concatenated
            train_split='train',
            valid_split='valid',  # scored during training; needs ground truth
            tokenizer=config_dict.placeholder(
                str
            ),  # folder of RoBERTa's files; None: learn byte pairs from the sentences
            num_frames=5,
            sentences=1,  # maximum number of sentences per clip in training
            frame_size=(512, 640),  # every clip is padded to this height and width
            text_length=64,
            batch_size=8,
            workers=4,
            reverse_probability=0.3,
            consecutive=False,  # True: consecutive frames, as in SOC; False: frames drawn around a central one
            on_bad_clip='raise',
            augmentation=ConfigDict(
                dict(
                    order=('select', 'flip', 'photometric'),
                    scales=(288, 320, 352, 392, 416, 448, 480, 512),
                    max_size=640,
                    crop_probability=0.5,
                    crop_scales=(400, 500, 600),
                    crop_size=(384, 600),
                    cropped_scales=(288, 320, 352, 392, 416, 448, 480, 512),
                    cropped_max_size=640,
                    flip_probability=0.5,
                )
            ),
        )
    )
    config.evaluation = ConfigDict(
        dict(
            protocol='ytvos',  # inference/protocols.py: PROTOCOLS
            records=_paths(),  # a built data set; empty: the one of `data`
            split='valid',  # predicted by evaluate.py
            short_side=360,
            max_side=config_dict.placeholder(int),
            clip_frames=36,  # maximum per window: the longest video of Ref-YouTube-VOS, the protocol of Ref-DAVIS17
            # Maximum number of sentences processed together. It does not change SgMg's masks; more is faster if memory
            # allows. Fast SgMg owes its speed to many sentences, and its masks depend slightly on how they are grouped.
            sentences=1,
            # A sentence whose mean score in a window is below it has empty masks there; 0: never. For sentences that
            # refer to nothing (MeViS). Protocols 'ytvos' and 'mevis'.
            threshold=0.0,
            videos=config_dict.placeholder(int),  # number of videos scored during training; None: all
        )
    )
    config.optimizer = ConfigDict(
        dict(
            batch_size=8,  # the rates below are for this batch size and scale with data.batch_size
            learning_rate=1e-4,
            groups=(('video_encoder/.*', 5e-5),),
            freeze=('text_backbone/.*',),
            weight_decay=5e-4,
            clip_norm=0.1,
            warmup_steps=0,
            drop_steps=(),  # all rates fall tenfold at these steps
            drop_epochs=(),  # ... or, with `epochs`, after these epochs
        )
    )
    return config


def split_mode(mode: str, known: Sequence[str]) -> list[str]:
    """The words after the colon of --config. Raises ValueError for an unknown one."""
    words = mode.split(',')
    unknown = sorted(set(words) - set(known))
    if unknown:
        raise ValueError(f'--config=...:{mode}: there is no mode {unknown[0]!r}; use one of {", ".join(known)}.')
    return words


def apply_mode(config: ConfigDict, mode: str) -> ConfigDict:
    """The config of a full-size experiment for the mode after the colon of --config=configs/ytvos.py:base,smoke.

    Args:
        mode: words joined by commas: 'base' selects Video-Swin-B, 'smoke' two small steps that check that everything
            is in place, 'full' changes nothing.

    Raises:
        ValueError: for an unknown word.
    """
    words = split_mode(mode, MODES)
    if 'base' in words:
        config.model.backbone = 'base'
    if 'smoke' in words:
        config.update(steps=2, epochs=0.0, log_every=1, eval_every=2, checkpoint_every=1)
        config.optimizer.update(drop_steps=(), drop_epochs=())
        config.data.update(batch_size=1, num_frames=min(2, config.data.num_frames), frame_size=(160, 160), workers=0)
        config.data.augmentation.update(scales=(144,), max_size=160, cropped_max_size=160, crop_probability=0.0)
        config.evaluation.update(
            short_side=144, max_side=None, clip_frames=min(2, config.evaluation.clip_frames), videos=1
        )
    return config
