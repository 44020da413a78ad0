"""Stage data_card: a page on what the classifier learned from."""
