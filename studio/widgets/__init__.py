"""Controls that Gradio does not have, each one HTML component with its script beside it."""
