"""Classification: items, objectives, stages, prediction, evaluation, results."""
