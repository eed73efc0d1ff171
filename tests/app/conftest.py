"""The browser's test needs gradio and playwright: `make app-test` has them, `make test` does not."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec('playwright') else ['test_page.py']
