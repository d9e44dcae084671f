"""Engine, models, migrations and every query; imports no gradio, so the worker uses it too."""
