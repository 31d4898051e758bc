"""Images and video. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("image_resolution", "Downscales input images so that neither height nor width exceeds this many pixels.",
            llamafactory=inert("image_resolution", 512)),
    refused("video_resolution", "Downscales video frames so that neither height nor width exceeds this many pixels.",
            llamafactory=inert("video_resolution", 128)),
    refused("video_fps", "Number of frames sampled per second of input video.", llamafactory=inert("video_fps", 2.0)),
    refused("video_maxlen", "Caps how many sampled frames of one video are fed to the model.", llamafactory=inert("video_maxlen", 64)),
    refused("freeze_vision_tower", "Keeps vision-tower parameters frozen in multimodal training.",
            llamafactory=(inert("freeze_vision_tower", True), inert("no_freeze_vision_tower", False))),
    refused("train_mm_proj_only", "Trains only the multimodal projector.", llamafactory=inert("train_mm_proj_only", False)),
)
