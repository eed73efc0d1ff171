"""The fields every experiment has, with the released SgMg's values; each config changes what it must."""
from ml_collections import ConfigDict, config_dict

MODES = 'full', 'base', 'smoke'


def _paths(*default):
    """A field that takes one path, or a tuple of them."""
    return config_dict.FieldReference(default, field_type=object)


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.steps = 0  # or, counted in passes through the training clips,
    config.epochs = 0.0
    config.log_every = 50
    config.eval_every = 5000
    config.checkpoint_every = 1000
    # Weights to start from, one path or several, each for its part: .pth or .safetensors of SgMg, SOC, Video Swin, Swin
    # or RoBERTa, what `python -m sgmg_jax.convert` wrote, or the --workdir of another run. See convert/weights.py.
    config.init = _paths()
    config.init_skip = ''  # a regular expression: parameters that stay new, 'class_heads_.*' to finetune
    config.fsdp = 1  # devices that share one copy of the parameters
    config.accumulate = 1  # parts of a batch that go through one after the other; the step is the whole batch's
    config.ema_decay = 0.0  # of a moving average of the parameters, which then is what is evaluated; 0: none
    config.stop_after_skipped = 20  # steps in a row without a finite gradient; looked at with every line of the log

    config.loss = ConfigDict()  # what the loss of config.model.name can be told, see losses/soc.py
    config.model = ConfigDict(dict(
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
        dropout=0.1,
        text_dropout=0.1,
        drop_path=0.2,
        remat=False,
        dtype='float32',
    ))
    config.data = ConfigDict(dict(
        records=_paths('data/tfds/ref_youtube_vos'),  # built data sets; of several, one follows the other
        train_split='train',
        valid_split='valid',  # scored during training; needs ground truth
        tokenizer=config_dict.placeholder(str),  # RoBERTa's files; None: learn byte pairs from the sentences
        num_frames=5,
        sentences=1,  # asked of a clip together in training, at most
        frame_size=(512, 640),  # height and width every clip is padded to
        text_length=64,
        batch_size=8,
        workers=4,
        reverse_probability=0.3,
        consecutive=False,  # frames of a clip follow each other, as SOC trains; else they are drawn around one
        on_bad_clip='raise',
        augmentation=ConfigDict(dict(
            order=('select', 'flip', 'photometric'),
            scales=(288, 320, 352, 392, 416, 448, 480, 512),
            max_size=640,
            crop_probability=0.5,
            crop_scales=(400, 500, 600),
            crop_size=(384, 600),
            cropped_scales=(288, 320, 352, 392, 416, 448, 480, 512),
            cropped_max_size=640,
            flip_probability=0.5,
        )),
    ))
    config.evaluation = ConfigDict(dict(
        protocol='ytvos',  # inference/protocols.py: PROTOCOLS
        records=_paths(),  # a built data set; none: that of `data`
        split='valid',  # what evaluate.py predicts
        short_side=360,
        max_side=config_dict.placeholder(int),
        clip_frames=36,  # segmented together at most: Ref-YouTube-VOS has no longer videos, Ref-DAVIS17 asks for it
        # Asked together at most. SgMg gives the same whatever the number: more is faster where memory allows it. Fast
        # SgMg is as fast as it is by asking many, and its masks depend a little on which.
        sentences=1,
        videos=config_dict.placeholder(int),  # how many are scored during training; None: all
    ))
    config.optimizer = ConfigDict(dict(
        batch_size=8,  # that the rates are meant for; with another data.batch_size they change in proportion
        learning_rate=1e-4,
        groups=(('video_encoder/.*', 5e-5),),
        freeze=('text_backbone/.*',),
        weight_decay=5e-4,
        clip_norm=0.1,
        warmup_steps=0,
        drop_steps=(),  # when all rates fall tenfold; where `epochs` counts,
        drop_epochs=(),
    ))
    return config


def split_mode(mode, known):
    """The words of what follows the colon of --config. Raises ValueError for one that is not known."""
    words = mode.split(',')
    unknown = sorted(set(words) - set(known))
    if unknown:
        raise ValueError(f'--config=...:{mode}: there is no mode {unknown[0]!r}, only {", ".join(known)}.')
    return words


def apply_mode(config, mode):
    """The config of a released-size experiment for what follows the colon of --config=configs/ytvos.py:base,smoke.

    Args:
        mode: words by commas: 'base' for Video-Swin-B, 'smoke' for two small steps that only show that all is in
            place; 'full', as it is, by itself.

    Raises:
        ValueError: for another word.
    """
    words = split_mode(mode, MODES)
    if 'base' in words:
        config.model.backbone = 'base'
    if 'smoke' in words:
        config.update(steps=2, epochs=0.0, log_every=1, eval_every=2, checkpoint_every=1)
        config.optimizer.update(drop_steps=(), drop_epochs=())
        config.data.update(batch_size=1, num_frames=min(2, config.data.num_frames), frame_size=(160, 160), workers=0)
        config.data.augmentation.update(scales=(144,), max_size=160, cropped_max_size=160, crop_probability=0.0)
        config.evaluation.update(short_side=144, max_side=None, clip_frames=min(2, config.evaluation.clip_frames),
                                 videos=1)
    return config
