"""From cameras to prefix tokens: images that are absent in a row do not pass the vision tower.

Shape letters: B batch, C cameras, P patches, W language width.
"""

from __future__ import annotations

from torch import Tensor, nn


def image_tokens(
    vision: nn.Module, projector: nn.Module, images: Tensor, image_mask: Tensor, *, static: bool
) -> tuple[Tensor, Tensor]:
    """Tokens [B, C P, W] of images [B, C, 3, h, w] and which exist [B, C P]; absent images give zeros.

    With `static` shapes every image is seen and the mask alone hides the absent ones.
    """
    flat, present = images.flatten(0, 1), image_mask.flatten()
    if static or bool(present.all()):
        patches = projector(vision(flat))
    else:
        seen = projector(vision(flat[present]))
        patches = seen.new_zeros(len(flat), *seen.shape[1:]).index_put((present,), seen)
    return patches.view(len(images), -1, patches.shape[-1]), image_mask.repeat_interleave(patches.shape[1], dim=1)
