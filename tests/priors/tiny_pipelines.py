"""Writes pipelines in the published layouts, with tiny networks of random weights, for the tests to load."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from bags_ns.priors.multiview_unet import MultiViewUNet

CLIP_SIZE = 28
IMAGE_SIZE = 16
TOKEN_DIM = 24
UNET_CONFIG = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [2, 1]}
UNET_CONFIG |= {"image_size": 8, "num_head_channels": 16, "context_dim": TOKEN_DIM, "camera_dim": 16, "ip_dim": 4}


def save_zero123(folder: Path) -> Path:
    """A Zero123 pipeline whose tokens are 24 wide instead of 768."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TOKEN_DIM,
        attention_head_dim=4,
    )
    unet.save_pretrained(folder / "unet")
    _save_vae(folder)
    vision = _vision_config(hidden_size=32, projection_dim=TOKEN_DIM)
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    projection = {"proj.weight": torch.randn(TOKEN_DIM, TOKEN_DIM + 4), "proj.bias": torch.randn(TOKEN_DIM)}
    (folder / "clip_camera_projection").mkdir()
    save_file(projection, str(folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"))
    config = {"_class_name": "CLIPCameraProjection", "embedding_dim": TOKEN_DIM, "additional_embeddings": 4}
    write_json(folder / "clip_camera_projection" / "config.json", config)
    # Sizes as the older preprocessors wrote them; the other pipeline has the newer form.
    _save_preprocessing(folder, size=CLIP_SIZE, crop_size=CLIP_SIZE)
    return folder


def save_imagedream(folder: Path) -> Path:
    """An ImageDream pipeline whose text tokens are 24 wide instead of 1024."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionModel

    torch.manual_seed(0)
    (folder / "unet").mkdir(parents=True)
    save_file(MultiViewUNet(**UNET_CONFIG).state_dict(), str(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    write_json(folder / "unet" / "config.json", {"_class_name": "MultiViewUNetModel"} | UNET_CONFIG)
    _save_vae(folder)
    vocabulary = _save_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TOKEN_DIM,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    CLIPVisionModel(_vision_config(hidden_size=1280, projection_dim=32)).save_pretrained(folder / "image_encoder")
    square = {"height": CLIP_SIZE, "width": CLIP_SIZE}
    _save_preprocessing(folder, size={"shortest_edge": CLIP_SIZE}, crop_size=square)
    return folder


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _save_vae(folder: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    vae.save_pretrained(folder / "vae")


def _vision_config(hidden_size: int, projection_dim: int):
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=hidden_size,
        intermediate_size=32,
        projection_dim=projection_dim,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=CLIP_SIZE,
        patch_size=14,
    )


def _save_preprocessing(folder: Path, **sizes: object) -> None:
    (folder / "feature_extractor").mkdir()
    statistics = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    write_json(folder / "feature_extractor" / "preprocessor_config.json", statistics | sizes)
    (folder / "scheduler").mkdir()
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler"} | betas)


def _save_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer that spells words letter by letter; returns the size of its vocabulary."""
    folder.mkdir()
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {word: index for index, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special |= {"pad_token": "!", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    write_json(folder / "tokenizer_config.json", special)
    return len(words)
