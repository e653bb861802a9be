"""Writes the pages of `docs/` from the declarations in the code; a test fails when a page is stale."""
