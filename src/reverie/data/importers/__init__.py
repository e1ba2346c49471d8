"""Importers of other projects' recordings into the layout of our own.  `reverie import KIND SRC DST`.

take.py      what an importer hands over: a video, and the action of each of its frames
resample.py  25 frames a second out of any other rate, variable ones too; every angle is kept
video.py     times and frames of a video, cut to the shape asked for
command.py   the command: one take after the other, checked, reported and written
vpt.py, gf_minecraft.py, owamcap.py, opencs2.py, folder.py, lerobot.py: the formats
"""
