"""Models of pictures with random weights, in a few architectures and sizes."""

from typing import Any

from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from .models import shape_of

VIT_SIZES = {  # width, layers, heads, inner width of the feed-forward layers
    "tiny": (64, 3, 4, 128),
    "small": (192, 12, 3, 768),  # Touvron et al. 2021, table 1: DeiT-Ti
    "base": (768, 12, 12, 3072),  # Dosovitskiy et al. 2021, table 1: ViT-B
}
RESNET_SIZES = {  # width of the stem, widths and blocks of the stages, kind of block
    "tiny": (16, [16, 32, 64], [1, 1, 1], "basic"),
    "small": (64, [64, 128, 256, 512], [2, 2, 2, 2], "basic"),  # He et al. 2016, table 1: ResNet-18
    "base": (64, [256, 512, 1024, 2048], [3, 4, 6, 3], "bottleneck"),  # ResNet-50
}


def new_model(
    architecture: str, model_size: str, image_size: int, patch_size: int, names: dict[str, Any]
) -> PreTrainedModel:
    """A model with random weights.

    Args:
        architecture: "vit" or "resnet".
        model_size: A key of its sizes.
        image_size: Height and width of pictures, in pixels.
        patch_size: Height and width of a ViT's patches, in pixels.
        names: Settings that name the classes.

    Raises:
        ValueError: An unknown architecture or size, patches that don't fill the picture, or a picture of which a ResNet
            would leave one pixel: its batch norm fails on a batch of one row then, as the last of an epoch may be.
    """
    if architecture == "resnet":
        stem, widths, depths, block = shape_of(model_size, RESNET_SIZES)
        least = 2 ** (len(depths) + 1) + 1  # the stem halves the sides twice, each later stage once
        if image_size < least:
            raise ValueError(
                f"image_size={image_size} is too small for a ResNet of model_size={model_size!r}, which would leave "
                f"one pixel: give {least} or more (pictures are enlarged)."
            )
        blocks = dict(hidden_sizes=widths, depths=depths, layer_type=block)
        return ResNetForImageClassification(ResNetConfig(embedding_size=stem, **blocks, **names))
    if architecture != "vit":
        raise ValueError(f"architecture={architecture!r} is not known; give vit or resnet.")
    width, layers, heads, inner = shape_of(model_size, VIT_SIZES)
    if patch_size < 1 or image_size % patch_size:
        raise ValueError(f"patch_size={patch_size} is no divisor of image_size={image_size}.")
    config = ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        initializer_range=width**-0.5,  # keeps the scale of a layer's input; 0.02 is too small for narrow models
        **names,
    )
    return ViTForImageClassification(config)
