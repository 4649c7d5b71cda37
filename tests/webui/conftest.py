"""A real server and a real browser, as the end-to-end tests have them."""

from __future__ import annotations

from playwright.sync_api import expect

# Milliseconds. A busy machine is slow, and that is no failure of the page.
expect.set_options(timeout=120_000)
