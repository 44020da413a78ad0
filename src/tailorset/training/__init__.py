"""Stage train_classifier: the loop, augmentation, averaging of weights, and the choice of the best epoch."""
