"""Image files and pixels: decode, encode, resize, contact sheets."""
