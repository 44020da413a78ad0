"""Stage generate_images: which prompt is drawn next, until every label has its quota of kept images."""
