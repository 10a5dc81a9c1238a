"""Lets `lightly` 1.2.8 be imported beside libraries of today; the client itself uses none of what is patched.

Its package imports the training code: torchvision's compiled part does not fit every CPU build of torch, its newer
releases lack the video reader's flag, and pytorch-lightning moved a module.
"""

# ruff: noqa: E402 - what it mends must be mended before the import
from __future__ import annotations

import sys
import types

sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

import pytorch_lightning.core
import torchvision.io

torchvision.io._HAS_VIDEO_OPT = False
pytorch_lightning.core.lightning = pytorch_lightning.core.module
sys.modules["pytorch_lightning.core.lightning"] = pytorch_lightning.core.module
