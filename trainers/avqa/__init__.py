"""Question answering: items, objectives, recipes, evaluation."""
