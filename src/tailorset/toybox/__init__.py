"""The toybox world: a procedurally drawn stand-in for real images, with known truth."""
