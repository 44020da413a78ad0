"""Files: shards of images, checkpoints, checksums, model hub, remote folders."""
