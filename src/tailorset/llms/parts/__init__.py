"""Code that LLM plug-ins share."""
