"""From rows to tokens. Nothing here opens a tokenizer: each function is handed one."""
