"""Corruptions of clips as media shards hold them: of the waveform, and of the picture before normalisation.

`record` is what one is, `protocols` names those of AVROBUSTBENCH and READ, `pictures`, `weather`, `lenses` and
`sounds` are the functions with their severities, `files` reads the user's recordings and overlays, `apply` does it to
a sample. They are conditions of evaluation (`models.conditions`), never of training.
"""
