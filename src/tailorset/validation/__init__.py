"""Stage validate_data: expectations on every table between the stages."""
