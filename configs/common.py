"""The fields every experiment has, with the released SgMg's values; each config changes what it must."""
from ml_collections import ConfigDict, config_dict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.steps = 0
    config.log_every = 50
    config.eval_every = 5000
    config.checkpoint_every = 1000
    # Weights to start from, each for its part: .pth or .safetensors of SgMg, Video Swin, Swin or RoBERTa, what
    # `python -m sgmg_jax.convert` wrote, or the --workdir of another run. See convert/weights.py.
    config.init = ()
    config.init_skip = ''  # a regular expression: parameters that stay new, 'class_heads_.*' to finetune
    config.fsdp = 1  # devices that share one copy of the parameters

    config.model = ConfigDict(dict(
        name='sgmg',
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
        records='data/tfds/ref_youtube_vos',
        train_split='train',
        valid_split='valid',  # scored during training; needs ground truth
        tokenizer=config_dict.placeholder(str),  # RoBERTa's files; None: learn byte pairs from the sentences
        num_frames=5,
        frame_size=(512, 640),  # height and width every clip is padded to
        text_length=64,
        batch_size=8,
        workers=4,
        reverse_probability=0.3,
        on_bad_clip='raise',
        augmentation=ConfigDict(dict(
            scales=(288, 320, 352, 392, 416, 448, 480, 512),
            max_size=640,
            crop_probability=0.5,
            crop_scales=(400, 500, 600),
            crop_size=(384, 600),
            flip_probability=0.5,
            photometric=True,
        )),
    ))
    config.evaluation = ConfigDict(dict(
        split='valid',  # what evaluate.py predicts
        short_side=360,
        max_side=config_dict.placeholder(int),
        clip_frames=config_dict.placeholder(int),
        videos=config_dict.placeholder(int),  # how many are scored during training; None: all
    ))
    config.optimizer = ConfigDict(dict(
        learning_rate=1e-4,
        groups=(('video_encoder/.*', 5e-5),),
        freeze=('text_backbone/.*',),
        weight_decay=5e-4,
        clip_norm=0.1,
        warmup_steps=0,
        drop_steps=(),
    ))
    return config
