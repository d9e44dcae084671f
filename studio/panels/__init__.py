"""The parts of a page: each builds its components, keeps plain handlers, and wires them at the end."""
