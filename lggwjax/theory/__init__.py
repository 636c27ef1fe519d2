"""Guarantees: each function names the statement of lggwjax/theory/README.md that it computes."""
