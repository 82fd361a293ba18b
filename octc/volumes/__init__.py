"""Volumes as clinics have them: DICOM OPT and makers' files, read frame by frame, with the source of every fact.

from octc.volumes import read_volume, read_volumes

volume = read_volume("eye.vol")
volume.laterality.value, volume.frame(0).shape
"""

from __future__ import annotations

from octc.volumes.formats import format_of, read_volume, read_volumes
from octc.volumes.volume import Fact, Intensity, RawShape, Volume

__all__ = ["Fact", "Intensity", "RawShape", "Volume", "format_of", "read_volume", "read_volumes"]
