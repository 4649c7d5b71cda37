"""llama.cpp: GGUF files written for it, and the process that answers from them."""
