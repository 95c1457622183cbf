"""Industrial defect detection: supervised and self-supervised learning, judged side by side."""

__version__ = "0.1.0"
