"""Stage tune_text_encoder: LoRA of the text encoder by a class-discriminative CLIP loss."""
