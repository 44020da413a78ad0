"""Stage train_classifier: the loop, augmentation and averaging of weights."""
