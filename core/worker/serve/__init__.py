"""What answers a server's requests: llama.cpp, transformers, or a model that gives labels or
embeddings alone."""
