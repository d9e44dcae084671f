"""Every training and measuring job; each module runs as ``python -m trainers.X`` and resumes after an interruption."""
