"""What every training has in common, whatever is trained: optimizers, averages, saved runs."""
