"""Stage write_prompts: dialogues with an LLM, and the contract that its replies must meet."""
