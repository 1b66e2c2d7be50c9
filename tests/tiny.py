"""Tiny randomly initialised pipelines of every kind of teacher: milliseconds to build, safetensors, no network."""

import string
from functools import cache

import diffusers
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel, VQModel
from dxmi_plugins.schedulers.annealed_langevin import AnnealedLangevinScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIZE = 8  # of images; latents have half of it
SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
BLOCKS = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
PIXELS = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}


def tiny(kind, folder, **options):
    """Save a pipeline of this kind; ``options`` are those of its builder below, any others the scheduler's."""
    torch.manual_seed(0)
    KINDS[kind](**options).save_pretrained(folder)
    return folder


def folders(factory, options=None):
    """Where tiny pipelines lie, by kind: made when first asked for, with the options of their kind."""

    @cache
    def source(kind):
        return str(tiny(kind, factory.mktemp(kind), **(options or {}).get(kind, {})))

    return source


def draw(pipeline, n=2, steps=2, seed=0, prompt="a digit", guidance=1.0, labels=None, **options):
    """Images (n,C,H,W) in [0, 1] of any of the pipelines; class-conditional ones draw ``labels``, 0..n-1 by default."""
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(seed), "output_type": "np"}
    labels = list(range(n)) if labels is None else labels
    if hasattr(pipeline, "text_encoder"):
        given |= {"prompt": [prompt] * n, "guidance_scale": guidance}
    elif isinstance(pipeline, diffusers.DiTPipeline):
        given |= {"class_labels": labels, "guidance_scale": guidance}
    elif isinstance(pipeline, diffusers.ConsistencyModelPipeline):
        given |= {"class_labels": labels, "batch_size": n}
    else:
        given |= {"batch_size": n}
    images = pipeline(**{**given, **options}).images
    return torch.as_tensor(images).permute(0, 3, 1, 2)


def unet(channels=1, size=SIZE, outputs=None, **options):
    return diffusers.UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=outputs or channels, **BLOCKS, **PIXELS, **options
    )


def noise_levels(scheduler, **options):
    return getattr(diffusers, scheduler)(**options)


def ddpm(scheduler="DDPMScheduler", channels=1, size=SIZE, **noise):
    """Any scheduler with ``alphas_cumprod``; prediction_type, beta_schedule, thresholding and so on go to it."""
    return diffusers.DDPMPipeline(unet=unet(channels, size), scheduler=noise_levels(scheduler, **noise))


def ddpm_variance(channels=1, size=SIZE, **noise):
    """The network predicts a variance too: twice as many channels."""
    scheduler = noise_levels("DDPMScheduler", **{"variance_type": "learned_range", **noise})
    return diffusers.DDPMPipeline(unet=unet(channels, size, 2 * channels), scheduler=scheduler)


def edm(scheduler="EDMEulerScheduler", channels=1, size=SIZE, classes=None, **noise):
    """``ConsistencyModelPipeline`` is the one that scales its start by sigma_max and its network's input."""
    network = unet(channels, size, num_class_embeds=classes)
    return diffusers.ConsistencyModelPipeline(unet=network, scheduler=noise_levels(scheduler, **noise))


def classes(scheduler="DDPMScheduler", channels=1, size=SIZE, classes=10, **noise):
    network = unet(channels, size, num_class_embeds=classes)
    return diffusers.ConsistencyModelPipeline(unet=network, scheduler=noise_levels(scheduler, **noise))


def annealed(channels=1, size=SIZE, **noise):
    """As ``dxmi pretrain`` with ``objective: multi_noise`` leaves it."""
    noise = {"sigma_max": 5.0, "num_train_timesteps": 20, "inner": 1, "prediction_type": "epsilon", **noise}
    return diffusers.DDPMPipeline(unet=unet(channels, size), scheduler=AnnealedLangevinScheduler(**noise))


def kl(channels=1, size=SIZE, latents=4, **options):
    encoder = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    shape = {"in_channels": channels, "out_channels": channels, "latent_channels": latents, "sample_size": size}
    return AutoencoderKL(**BLOCKS, **encoder, **shape, **options).eval()


def ldm_kl(scheduler="DDIMScheduler", channels=1, size=SIZE, scaling_factor=0.18215, **noise):
    vae = kl(channels, size, scaling_factor=scaling_factor)
    return diffusers.LDMPipeline(vqvae=vae, unet=unet(4, size // 2), scheduler=noise_levels(scheduler, **noise))


def ldm_vq(scheduler="DDIMScheduler", channels=1, size=SIZE, **noise):
    encoder = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    shape = {"in_channels": channels, "out_channels": channels, "latent_channels": 3, "sample_size": size}
    vae = VQModel(**BLOCKS, **encoder, **shape, num_vq_embeddings=32)
    return diffusers.LDMPipeline(vqvae=vae, unet=unet(3, size // 2), scheduler=noise_levels(scheduler, **noise))


def dit(scheduler="DDIMScheduler", channels=1, size=SIZE, classes=10, **noise):
    """With learned-variance channels. ``DiTPipeline`` guides with the label 1000: that takes ``classes=1000``."""
    transformer = DiTTransformer2DModel(
        sample_size=size // 2,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=4,
        num_embeds_ada_norm=classes,
    )
    names = {i: f"class {i}" for i in range(classes)}
    scheduler = noise_levels(scheduler, **noise)
    return diffusers.DiTPipeline(transformer=transformer, vae=kl(channels, size), scheduler=scheduler, id2label=names)


def tokenizer():
    """A vocabulary of letters: words are spelled out."""
    letters = string.ascii_lowercase + string.digits
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=8)


def clip(width, projection=None):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def text_unet(size, width, **options):
    return UNet2DConditionModel(
        sample_size=size // 2,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        **BLOCKS,
        **options,
    )


def sd(scheduler="DDIMScheduler", channels=1, size=SIZE, **noise):
    return diffusers.StableDiffusionPipeline(
        vae=kl(channels, size),
        text_encoder=clip(16),
        tokenizer=tokenizer(),
        unet=text_unet(size, 16),
        scheduler=noise_levels(scheduler, **{**SD_NOISE, **noise}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(scheduler="DDIMScheduler", channels=1, size=SIZE, **noise):
    """Embeddings of two encoders side by side, 16 + 8 wide; the second one's pooled (12) and six sizes of 4 each."""
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    return diffusers.StableDiffusionXLPipeline(
        vae=kl(channels, size, scaling_factor=0.13025, force_upcast=False),
        text_encoder=clip(16),
        text_encoder_2=clip(8, projection=12),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=text_unet(size, 16 + 8, projection_class_embeddings_input_dim=6 * 4 + 12, **added),
        scheduler=noise_levels(scheduler, **{**SD_NOISE, **noise}),
    )


def sd3(channels=1, size=SIZE, t5=True, **noise):
    """Embeddings of two encoders side by side, padded to 32, then T5's; pooled: 16 + 8.

    Without T5 zeros take its place, and diffusers loads the folder only when told ``text_encoder_3=None`` and
    ``tokenizer_3=None``.
    """
    transformer = SD3Transformer2DModel(
        sample_size=size // 2,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=4,
        joint_attention_dim=32,
        caption_projection_dim=8,
        pooled_projection_dim=16 + 8,
        pos_embed_max_size=size,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=noise_levels("FlowMatchEulerDiscreteScheduler", **{"shift": 3.0, **noise}),
        vae=kl(channels, size, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False),
        text_encoder=clip(16, projection=16),
        tokenizer=tokenizer(),
        text_encoder_2=clip(8, projection=8),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5_encoder() if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )


def t5_tokenizer():
    words = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]
    return T5Tokenizer(vocab=[(word, -float(i)) for i, word in enumerate(words)], extra_ids=0)


def t5_encoder():
    sizes = {"d_model": 32, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(t5_tokenizer()), **sizes)).eval()


KINDS = {
    "ddpm": ddpm,
    "ddpm_variance": ddpm_variance,
    "edm": edm,
    "annealed": annealed,
    "classes": classes,
    "dit": dit,
    "ldm_kl": ldm_kl,
    "ldm_vq": ldm_vq,
    "sd": sd,
    "sdxl": sdxl,
    "sd3": sd3,
}
