"""The build report: what a ninja build spent its time on, and what bounded it.

`source` reads a build directory, `model` works out the report (pure), the other modules
show it: `text`, `markdown`, `page`, `trace`; `compare` and `gate` judge it.
"""
