"""Contact sheets of all pages: `python -m tests.browser.pictures [PAGE …]`.

Each page is drawn in each state that matters: on a phone and a desktop, light and dark, in English
and Italian. The sheets go to docs/images/pages.
"""
