"""Stage register_model and promotion: measure, compare, promote, roll back."""
