"""Code that the data sets share: annotations, photos, zero-shot splits, shards."""
