"""What the data sets share: annotations, photos, zero-shot splits."""
