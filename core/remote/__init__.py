"""Models elsewhere: one client for OpenAI-compatible endpoints, for drafts and judges alike."""
