"""Volumes as clinics have them: DICOM OPT and makers' files, read frame by frame, with the source of every fact.

from octc.volumes import read_volume, read_volumes

volume = read_volume("eye.vol")
volume.laterality.value, volume.frame(0).shape
"""

from __future__ import annotations

from octc.volumes.formats import format_of as format_of
from octc.volumes.formats import read_volume as read_volume
from octc.volumes.formats import read_volumes as read_volumes
from octc.volumes.volume import Fact as Fact
from octc.volumes.volume import Intensity as Intensity
from octc.volumes.volume import RawShape as RawShape
from octc.volumes.volume import Volume as Volume
