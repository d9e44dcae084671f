"""What a person touches: settings, the store of everything they decide, and the Gradio interface."""
