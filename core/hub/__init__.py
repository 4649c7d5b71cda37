"""The Hugging Face Hub: who is logged in, pushing exports and data sets, finding
and fetching models, and the cache that they lie in.

HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, HF_HOME and the token store are huggingface_hub's. It is
imported inside functions alone: the page opens without it.
"""
