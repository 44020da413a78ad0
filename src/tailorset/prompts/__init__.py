"""Stage write_prompts: dialogues with an LLM, and the contract its replies must meet."""
